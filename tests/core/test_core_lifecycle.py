import pytest
from core_builders import Story, command, joined, report

from core.lifecycle import TRANSITIONS, IllegalTransition, allows, step

# what the exam says, for every state and every event; None: not possible there
EXPECTED = {
    #               begin          report         submit       pause     resume         terminate     time_out
    "not_joined": ("in_progress", "in_progress", "submitted", None, None, "terminated", None),
    "in_progress": ("in_progress", "in_progress", "submitted", "paused", "in_progress", "terminated", "timed_out"),
    "paused": ("in_progress", "paused", "submitted", "paused", "in_progress", "terminated", "timed_out"),
    "submitted": ("in_progress", "submitted", "submitted", None, None, None, None),
    "timed_out": ("in_progress", "timed_out", "submitted", None, None, "terminated", None),
    "terminated": ("in_progress", "terminated", None, None, None, "terminated", None),
}
EVENTS = ("begin", "report", "submit", "pause", "resume", "terminate", "time_out")
PAIRS = [(state, event, EXPECTED[state][n]) for state in EXPECTED for n, event in enumerate(EVENTS)]


@pytest.mark.parametrize(("state", "event", "following"), PAIRS)
def test_every_state_and_event(state, event, following):
    assert allows(state, event) == (following is not None)
    if following is None:
        with pytest.raises(IllegalTransition, match=f"{event} is not possible while {state}"):
            step(state, event)
    else:
        assert step(state, event) == following


def test_the_table_knows_no_other_state_or_event():
    assert set(TRANSITIONS) == set(EXPECTED)
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENTS)


def in_state(state: str) -> Story:
    """A participant in this state, brought there by events."""
    if state == "not_joined":
        return Story()
    story = joined(time_end=None)
    match state:
        case "paused":
            story(command(1, "pause", id="to-paused"))
        case "submitted":
            story(report(1, attempt_state="submitted"))
        case "terminated":
            story(command(1, "terminate", id="to-terminated"))
        case "timed_out":
            story(report(1, time_end=story.record.last_seen))
            story.until(120)
    assert story.record.lifecycle == state
    return story


BY_EVENT = {
    "report": lambda: report(200, connection="c9", connected_at=190),
    "submit": lambda: report(200, connection="c9", connected_at=190, attempt_state="submitted"),
    "begin": lambda: report(200, connection="c9", connected_at=190, attempt="a2"),
    "pause": lambda: command(200, "pause"),
    "resume": lambda: command(200, "resume"),
    "terminate": lambda: command(200, "terminate"),
}


@pytest.mark.parametrize(("state", "event", "following"), [p for p in PAIRS if p[1] != "time_out"])
def test_decisions_follow_the_table(state, event, following):
    """What the table does not allow leaves the lifecycle as it is: a report is applied without it, a command is refused."""
    story = in_state(state)
    decision = story(BY_EVENT[event]())
    assert story.record.lifecycle == (following or state)
    refused = [e for e in decision.entries if e.kind == "command" and e.after == "refused"]
    assert bool(refused) == (following is None and event in ("pause", "resume", "terminate"))
    if refused:
        assert refused[0].text == f"not possible while {state}"


@pytest.mark.parametrize("state", EXPECTED)
def test_only_a_running_attempt_times_out(state):
    story = in_state(state)
    story(report(200, connection="c9", connected_at=190, time_end=story.record.last_seen + 250))
    end = story.record.time_end
    story.until(2_000)
    expected = {"not_joined": "timed_out", "in_progress": "timed_out", "paused": "timed_out"}.get(state, state)
    assert story.record.lifecycle == expected
    assert end is not None
    assert story.record.check_at is None


def test_it_times_out_a_minute_after_the_end_and_not_before():
    story = joined()
    end = story.record.last_seen + 100
    for at in range(1, 200, 4):
        story(report(at, time_end=end))
        story.until(at)
        if at < 160:
            assert story.record.lifecycle == "in_progress", at
    assert story.record.lifecycle == "timed_out"
    assert next(e for e in story.entries if e.after == "timed_out").at == end + 60


def test_an_answer_that_was_on_its_way_still_submits_after_the_time_was_out():
    story = in_state("timed_out")
    story(report(130, connection="c2", connected_at=129, attempt_state="submitted"))
    assert story.record.label == "submitted"


def test_after_submission_nothing_turns_anyone_reconnecting_or_offline():
    story = joined()
    story(report(5, attempt_state="submitted"))
    assert story.until(10_000) == "submitted"
    assert story.labels == ["active", "submitted"]
    assert story.record.offline_seconds == 0
    assert story.record.check_at is None


def test_terminating_before_the_first_report_holds_for_the_first_attempt_and_not_for_the_next():
    story = Story()
    story(command(0, "terminate"))
    story(report(5))
    assert story.record.label == "terminated"
    story(report(9, connection="c2", connected_at=8, attempt="a2"))
    assert story.record.label == "active"
