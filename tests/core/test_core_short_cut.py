"""The short cut of `decide` for a page that only goes on gives the decision of the long way, whatever came before."""

from __future__ import annotations

import sys

from core_builders import EXAM, T0, Story, command, deadline, heartbeat, joined, lost, ordered, receipt, report, words
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.events import StatusReported

decide_module = sys.modules["core.decide"]  # `core.decide` itself is the function

connections = st.sampled_from(["c1", "c2"])
ends = st.sampled_from([None, T0 + 40, T0 + 3_600])
reports = st.builds(
    lambda seq, **fields: lambda at: report(at, seq=seq, **fields),
    seq=st.one_of(st.none(), st.integers(1, 6)),
    connection=connections,
    connected_at=st.sampled_from([0.0, 5.0]),
    status=st.sampled_from(["active"] * 5 + ["away", "offline"]),
    attempt=st.sampled_from(["a1"] * 5 + ["a2"]),
    name=st.sampled_from(["", "Ann"]),
    group=st.sampled_from(["", "g1"]),
    time_start=st.sampled_from([None, T0]),
    time_end=ends,
    question_answered=st.one_of(st.none(), st.integers(0, 3)),
    question_number_current=st.one_of(st.none(), st.integers(0, 3)),
    question_total=st.sampled_from([None, 10]),
    score=st.sampled_from([None, 0.0, 5.0]),
    tab_id=st.sampled_from([None, None, "t1"]),
    next_ms=st.sampled_from([None, 1_000, 60_000]),
    attempt_state=st.sampled_from([None] * 5 + ["in_progress", "submitted"]),
)
others = st.builds(
    lambda make, connection: lambda at: make(at, connection),
    make=st.sampled_from(
        [
            lambda at, connection: heartbeat(at, connection=connection),
            lambda at, connection: lost(at, connection=connection),
            lambda at, connection: ordered(at, connection=connection),
            lambda at, connection: command(at, "warn", text="look"),
            lambda at, connection: command(at, "pause"),
            lambda at, connection: command(at, "update", extra_minutes=5.0),
            lambda at, connection: receipt(at, connection=connection),
            lambda at, connection: words(at, "raise_hand", connection=connection),
        ]
    ),
    connection=connections,
)
exams = st.sampled_from([EXAM, replace(EXAM, state="closed"), replace(EXAM, gap_until=T0 + 60, hold_until=T0 + 90)])
steps = st.lists(
    st.tuples(st.floats(0, 8), st.one_of(reports, reports, reports, others), st.floats(0, 20), st.booleans()),
    max_size=25,
)


@given(exam=exams, steps=steps)
def test_the_short_cut_is_the_long_way(exam, steps):
    story, at = Story(exam), 0.0
    for pause, make, waited, is_late in steps:
        at += pause
        event, now = make(at), T0 + at + (waited if is_late else 0.0)
        while (check := story.record.check_at) is not None and check <= T0 + at:
            story(deadline(check - T0))
        if isinstance(event, StatusReported):
            quick = decide_module._goes_on(story.record, event, exam, now)
            assert quick is None or quick == decide_module._the_long_way(story.record, event, exam, now)
        story(event, now - T0)


def test_reports_of_a_page_that_goes_on_take_the_short_cut():
    story = joined(seq=1, question_answered=1)
    for seq in range(2, 5):
        event = report(seq, seq=seq, question_answered=seq)
        assert decide_module._goes_on(story.record, event, EXAM, event.received_at) is not None
        story(event)
