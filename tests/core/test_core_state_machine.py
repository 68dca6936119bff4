"""A Hypothesis machine: whatever happens in whatever order, and however often, these hold.

* The version never falls.
* At most one deadline is outstanding, and while a live session exists in a running attempt there is one, and it is not late.
* A replaced connection changes nothing.
* The same event again changes nothing that anyone sees, and writes no second line.
* Nobody turns offline before the lease has run out.
* Each change of label is one line, and the lines tell the labels.
* What a proctor sees equals a small model of its own.
"""

from __future__ import annotations

import itertools
import math

from core_builders import (
    T0,
    Story,
    command,
    deadline,
    heartbeat,
    lost,
    owner_lost,
    receipt,
    regrouped,
    report,
    words,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from core import effects as fx
from core.events import StatusReported
from core.participant import LIVE, RUNNING
from core.snapshot import view, visible

GAPS = st.sampled_from([0.0, 1 / 1024, 0.375, 1.0, 2 - 1 / 1024, 2.0, 3.0, 5.0, 7.5, 12.5, 20.0, 25.0, 61.0, 130.0])
MOMENT = 1 / 64  # like the gaps a power of two, so that sums of them are exact
TABS = st.sampled_from(["one", "two", "three", "four"])
PROMISES = st.sampled_from([None, 1_000, 5_000, 15_000, 60_000, 300_000])


class Page:
    """The model of one page: which connection it has, what it said last, until when it is believed."""

    def __init__(self, connection: str, at: float) -> None:
        self.connection = connection
        self.connected_at = at
        self.seq = 0
        self.status = "unknown"
        self.silent_from = at  # the moment from which silence shows
        self.offline_from = at


class ParticipantMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.at = 0.0
        self.pages: dict[str, Page] = {}
        self.ended: list[tuple[str, float]] = []
        self.connections = 0
        self.ids = 0
        self.answered = 0
        self.lifecycle = "not_joined"
        self.over_at = math.inf
        self.hand = False
        self.deadlines: list[float] = []
        self.past: list = []

    # --- playing ----------------------------------------------------------------------------------------------------------

    def play(self, event):
        """Decide an event; check what holds for every decision."""
        before = self.story.record
        lines = len(self.story.entries)
        decision = self.story(event, now=self.at)
        after = decision.participant
        self.deadlines += [e.at - T0 for e in decision.effects if isinstance(e, fx.SetDeadline)]
        if after is before:
            assert decision.entries == ()
        else:
            assert after.version > before.version
        kinds = [type(e) for e in decision.effects]
        assert fx.SetDeadline not in kinds[1:]
        assert fx.Ack not in kinds[:-1]
        published = fx.PublishView in kinds
        # the last report once more: its ack never came, and perhaps nobody was shown what it changed
        last = isinstance(event, StatusReported) and event.report.seq in {s.seq for s in before.sessions}
        assert published == (visible(before) != visible(after)) or (published and last)
        assert len(decision.effects) == len({id(e) for e in decision.effects})
        changes = [e for e in self.story.entries[lines:] if e.kind == "label"]
        assert [(e.before, e.after) for e in changes] == (
            [] if before.label == after.label else [(before.label, after.label)]
        )
        again = Story(self.story.exam, after)
        repeated = again(event, now=self.at)
        assert visible(repeated.participant) == visible(after)
        assert repeated.entries == ()
        shown = [e for e in repeated.effects if isinstance(e, fx.PublishMessage | fx.PublishView)]
        assert not shown or isinstance(event, StatusReported)
        self.past = [*self.past, event][-8:]  # a record remembers the last twelve ids
        return decision

    def pass_time(self, seconds: float) -> None:
        """Time goes on; each deadline comes on time, as the timers of a healthy shell bring it."""
        end = self.at + seconds
        while (check := self.story.record.check_at) is not None and check - T0 <= end:
            self.at = max(check - T0, self.at)
            self.play(deadline(check - T0, self.at))
            if self.lifecycle in RUNNING:
                continue
        self.at = end

    # --- rules ------------------------------------------------------------------------------------------------------------

    @rule(seconds=GAPS)
    def time_passes(self, seconds):
        self.pass_time(seconds)

    @rule(tab=TABS, status=st.sampled_from(["active", "away"]), next_ms=PROMISES, fresh=st.booleans())
    def a_page_reports(self, tab, status, next_ms, fresh):
        self.pass_time(MOMENT)
        page = self.pages.get(tab)
        if page is None or fresh or page.connection == "":
            page = self.connect(tab)
        page.seq += 1
        self.answered += 1
        self.play(
            report(
                self.at,
                connection=page.connection,
                connected_at=page.connected_at,
                status=status,
                tab_id=tab,
                seq=page.seq,
                next_ms=next_ms,
                question_answered=self.answered,
            )
        )
        page.status = status
        self.heard(page, next_ms)
        if self.lifecycle == "not_joined":
            self.lifecycle = "in_progress"

    def connect(self, tab: str) -> Page:
        """A page on a new connection; a fourth live page pushes out the oldest."""
        self.connections += 1
        old = self.pages.pop(tab, None)
        page = Page(f"c{self.connections}", self.at)
        if old is not None:
            page.seq = old.seq
            if old.connection:
                self.ended.append((old.connection, old.connected_at))
        elif len(self.pages) == 3:
            leaving = min(self.pages, key=lambda t: (self.presence(self.pages[t]) in LIVE, self.pages[t].connected_at))
            gone = self.pages.pop(leaving)
            if gone.connection:
                self.ended.append((gone.connection, gone.connected_at))
        self.pages[tab] = page
        return page

    def heard(self, page: Page, next_ms: int | None) -> None:
        longest = 300 if page.status == "away" else 120
        promise = 5 if next_ms is None else min(max(next_ms / 1000, 1), longest)
        was_connected = self.presence(page) == "connected"
        page.silent_from = max(self.at + 1.5 * promise + 5, page.silent_from if was_connected else 0)
        page.offline_from = page.silent_from + 0.5 * promise + 10

    def on_a_connection(self) -> list[Page]:
        return [page for page in self.pages.values() if page.connection and self.presence(page) != "left"]

    @precondition(lambda self: self.on_a_connection())
    @rule(data=st.data(), next_ms=PROMISES)
    def a_page_beats(self, data, next_ms):
        self.pass_time(MOMENT)
        page = data.draw(st.sampled_from(self.on_a_connection()))
        self.play(heartbeat(self.at, connection=page.connection, next_ms=next_ms))
        self.heard(page, next_ms)

    @precondition(lambda self: self.on_a_connection())
    @rule(data=st.data(), reason=st.sampled_from(["dropped", "left", "lost_by_us"]))
    def a_connection_is_lost(self, data, reason):
        self.pass_time(MOMENT)
        page = data.draw(st.sampled_from(self.on_a_connection()))
        presence = self.presence(page)
        self.play(lost(self.at, connection=page.connection, reason=reason))
        if presence in LIVE:
            if reason == "left":
                page.status, page.silent_from, page.offline_from = "left", self.at, self.at
            elif reason == "dropped" and presence == "connected":
                page.silent_from, page.offline_from = self.at, self.at + 20
            elif reason == "lost_by_us":
                self.lost_by_us(page)
        page.connection = ""

    def lost_by_us(self, page: Page) -> None:
        if self.presence(page) == "connected":
            page.silent_from = max(self.at + 15, page.silent_from)
            page.offline_from = max(self.at + 60, page.silent_from)
        elif self.presence(page) == "reconnecting":
            page.offline_from = max(self.at + 60, page.offline_from)

    @rule()
    def an_owner_dies(self):
        self.pass_time(MOMENT)
        self.play(owner_lost(self.at))
        for page in self.pages.values():
            self.lost_by_us(page)

    @rule(kind=st.sampled_from(["chat", "raise_hand", "lower_hand"]))
    def a_student_speaks(self, kind):
        self.ids += 1
        self.play(words(self.at, kind, id=f"m{self.ids}"))
        self.hand = {"chat": self.hand, "raise_hand": True, "lower_hand": False}[kind]

    @rule(name=st.sampled_from(["message", "pause", "resume", "flag"]))
    def a_proctor_commands(self, name):
        self.ids += 1
        self.play(command(self.at, name, id=f"k{self.ids}", expires=40, text="t"))
        if self.lifecycle in RUNNING:
            self.lifecycle = {"pause": "paused", "resume": "in_progress"}.get(name, self.lifecycle)

    @rule(group=st.sampled_from(["R1", "R2", "R3"]))
    def a_roster_changes(self, group):
        self.pass_time(MOMENT)
        self.play(regrouped(self.at, group=group))
        assert self.story.record.group == group

    @rule(outcome=st.sampled_from(["delivered", "confirmed"]), back=st.integers(0, 3))
    def a_receipt_comes(self, outcome, back):
        self.play(receipt(self.at, outcome, id=f"k{self.ids - back}"))

    @precondition(lambda self: self.pages)
    @rule()
    def a_page_submits(self):
        tab = sorted(self.pages)[0]
        self.pass_time(MOMENT)
        page = self.pages[tab]
        if not page.connection:
            page = self.connect(tab)
        page.seq += 1
        self.play(
            report(
                self.at,
                connection=page.connection,
                connected_at=page.connected_at,
                tab_id=tab,
                seq=page.seq,
                attempt_state="submitted",
            )
        )
        page.status = "active"
        self.heard(page, None)
        self.lifecycle = "submitted"
        self.over_at = min(self.over_at, self.at)

    # --- what changes nothing ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def a_replaced_connection_speaks(self, data):
        connection, _ = data.draw(st.sampled_from(self.ended))
        before = self.story.record
        if before.session_of(connection) is not None:
            return
        for event in (heartbeat(self.at, connection=connection), lost(self.at, connection=connection)):
            assert self.play(event).participant is before

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def an_old_event_comes_again(self, data):
        """A redelivery: nothing anyone sees changes.

        Not so for a page that was pushed out: the record does not remember it, so that a late frame of it opens a page.
        """
        event = data.draw(st.sampled_from(self.past))
        before = self.story.record
        if isinstance(event, StatusReported) and before.session_named(event.report.tab_id) is None:
            return
        decision = Story(self.story.exam, before)(event, now=self.at)
        same = ("question_answered", "lifecycle", "away_count")
        assert [getattr(decision.participant, f) for f in same] == [getattr(before, f) for f in same]
        after = decision.participant
        assert [
            replace(c, sent=True, sent_at=0) for c in after.commands
        ] == [  # it may go out again, and does not change
            replace(c, sent=True, sent_at=0) for c in before.commands
        ]
        assert all(c.sent or not was.sent for c, was in zip(after.commands, before.commands, strict=True))
        assert decision.participant.label == before.label
        assert decision.entries == ()

    @rule(at=st.floats(0, 500))
    def a_stray_deadline_comes(self, at):
        if T0 + at == self.story.record.check_at:
            return
        before = self.story.record
        assert self.play(deadline(at, self.at)).participant is before

    @precondition(lambda self: self.story.record.check_at is not None)
    @rule()
    def an_early_deadline_comes(self):
        check = self.story.record.check_at - T0
        if check <= self.at:
            return
        before = self.story.record
        decision = self.play(deadline(check, self.at))
        assert decision.participant is before
        assert [type(e) for e in decision.effects] == [fx.SetDeadline]

    # --- what holds -------------------------------------------------------------------------------------------------------

    def presence(self, page: Page) -> str:
        """Of a page now, or at the end of the attempt: from then on nobody looks after leases."""
        if page.status == "left":
            return "left"
        at = min(self.at, self.over_at)
        if at < page.silent_from:
            return "connected"
        return "reconnecting" if at < page.offline_from else "offline"

    @invariant()
    def the_view_is_the_models(self):
        """While the attempt runs; afterwards nobody looks after leases."""
        shown = view(self.story.record)
        assert shown.lifecycle == self.lifecycle
        assert ("hand_raised" in shown.flags) == self.hand
        assert shown.question_answered == self.answered
        if self.lifecycle not in RUNNING:
            return
        best = ("connected", "reconnecting", "offline", "left")
        expected = min((self.presence(p) for p in self.pages.values()), key=best.index)
        assert shown.presence == expected
        live = [p.status for p in self.pages.values() if self.presence(p) in LIVE]
        assert (shown.user_status == "away") == (bool(live) and all(s == "away" for s in live))
        assert ("several_pages" in shown.flags) <= (len(self.pages) > 1)

    @invariant()
    def one_deadline_is_outstanding_while_a_lease_runs(self):
        record = self.story.record
        running = record.lifecycle in RUNNING and any(s.presence in LIVE for s in record.sessions)
        if running:
            assert record.check_at is not None
            assert record.check_at <= min(s.lease_until for s in record.sessions if s.presence in LIVE)
        if record.check_at is not None:
            assert record.check_at - T0 in self.deadlines

    @invariant()
    def the_lines_tell_the_labels(self):
        told = ["not_joined", *self.story.labels]
        assert told[-1] == self.story.record.label
        assert all(one != other for one, other in itertools.pairwise(told))

    @invariant()
    def at_most_three_sessions_each_on_its_own_connection(self):
        sessions = self.story.record.sessions
        assert len(sessions) <= 3
        assert len({s.connection for s in sessions}) == len({s.id for s in sessions}) == len(sessions)


ParticipantMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestParticipant = ParticipantMachine.TestCase
