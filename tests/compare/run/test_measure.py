"""Judgements on small invented recordings: one exam, one student unless said, one proctor. Times are seconds from 1000."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from compare.run.measure import (
    Findings,
    Journal,
    Rules,
    clock_offset,
    is_complete,
    judge_run,
    missing_labels,
    truths,
    unsettled,
)
from compare.run.recording import (
    Attempt,
    Got,
    Line,
    Order,
    PageState,
    ProctorLog,
    Recording,
    Report,
    Seen,
    Status,
    StudentLog,
    Watch,
    Words,
)
from compare.run.truth import Shown, Truth
from compare.run.workload import Part, Plan, ProctorPlan, Schedule, StudentPlan
from core.journal import Entry
from core.messages import View

START = 1000.0
RULES = Rules("ec2")
ACTIVE = PageState()


class Scene:
    """An exam that is written down by hand."""

    def __init__(self, part: Part = "stays", client: Any = "proctorwire") -> None:
        student = StudentPlan("s-1", "a-1", "Student", "q-1", part, ())
        proctor = ProctorPlan("p-1", "q-1", ())
        schedule = Schedule(Plan(students=1, exams=1), ("q-1",), (student,), (proctor,), 15.0, 70.0)
        self.student = StudentLog(student, lines=[Line(START)])
        self.proctor = ProctorLog(proctor, watches=[Watch(START - 1, START - 0.9)])
        self.recording = Recording(schedule, client, START, [self.student], [self.proctor])
        self.entries: list[Entry] = []
        self._versions = 0
        self._label = "not_joined"

    def report(self, at: float, state: PageState = ACTIVE, *, changed: bool = True, acked: bool = True) -> Report:
        sent_at = START + at
        numbered = self.recording.client == "proctorwire"
        made = Report(state, len(self.student.reports) + 1 if numbered else 0, changed, sent_at)
        made.attempts.append(Attempt(sent_at, len(self.student.lines) - 1))
        if acked and numbered:
            made.acked_at, made.server_time = sent_at + 0.020, sent_at + 0.005
        self.student.reports.append(made)
        return made

    def show(self, at: float, label: str, seq: int = 0, *, update: bool = True, **fields: Any) -> Seen:
        """The proctor receives a view; it is journalled if its label is new."""
        self._versions += 1
        values: dict[str, Any] = dict.fromkeys(View.__struct_fields__, "")
        values |= {
            "student_id": "s-1",
            "label": label,
            "seq": seq,
            "version": self._versions,
            "last_seen": START + at - 0.01,
            "offline_since": START + at if label == "offline" else None,
        }
        view = View(**(values | fields))
        seen = Seen(START + at, view, len(self.proctor.watches) - 1, update, news=True)
        self.proctor.seen.append(seen)
        self.proctor.views["s-1"] = view
        if label != self._label:
            self.journal(at, label)
        return seen

    def journal(self, at: float, label: str) -> None:
        cause = "deadline" if label == "offline" else "reported"
        entry = Entry("compare", "q-1", "s-1", self._versions, 0, START + at, "label", cause, self._label, label)
        self.entries.append(entry)
        self._label = label

    def drop(self, at: float, end: Any = "dropped") -> None:
        self.student.lines[-1].closed_at, self.student.lines[-1].end = START + at, end
        self.student.gone = self.student.plan.part in ("vanishes", "leaves")

    def judged(self, at: float, rules: Rules = RULES, entries: Sequence[Entry] | None = None) -> Findings:
        self.recording.stopped_at = START + at
        journal = Journal({"q-1": self.entries if entries is None else entries}, START + at)
        return judge_run(self.recording, rules, truths(self.recording, rules), journal)


def counts(found: Findings) -> tuple[int, int, int]:
    return len(found.lost), len(found.duplicates), len(found.false_offline)


@pytest.fixture
def scene() -> Scene:
    """A student who joined and was seen."""
    it = Scene()
    it.report(0.0)
    it.show(0.030, "active", 1)
    return it


def test_latencies_come_from_the_ack_and_from_the_first_view_that_carries_the_report(scene: Scene) -> None:
    scene.report(3.0, PageState("away"))
    scene.show(3.050, "away", 2)
    found = scene.judged(10)
    assert found.message == pytest.approx([5.0, 5.0])
    assert found.round_trip == pytest.approx([20.0, 20.0])
    assert found.delivery == pytest.approx([30.0, 50.0])
    assert (found.sent, found.delivered) == (2, 2)
    assert counts(found) == (0, 0, 0)


def test_a_coalesced_update_delivers_both_reports(scene: Scene) -> None:
    scene.report(3.0, PageState(answered=1))
    scene.report(3.1, PageState(answered=2))
    scene.show(3.150, "active", 3)
    found = scene.judged(10)
    assert found.delivery == pytest.approx([30.0, 150.0, 50.0])
    assert counts(found) == (0, 0, 0)


def test_a_report_that_never_shows_is_lost(scene: Scene) -> None:
    scene.report(3.0, PageState(answered=1))
    found = scene.judged(10)
    assert found.lost == ["report 2 of s-1 did not reach p-1"]
    assert (found.sent, found.delivered) == (2, 1)


def test_a_report_that_shows_too_late_is_lost(scene: Scene) -> None:
    scene.report(3.0, PageState(answered=1))
    scene.show(8.1, "active", 2)
    assert scene.judged(10).lost == ["report 2 of s-1 did not reach p-1"]


def test_a_later_state_stands_for_an_earlier_one(scene: Scene) -> None:
    scene.report(3.0, PageState(answered=1))
    scene.report(5.0, PageState(answered=2))
    scene.show(5.030, "active", 3)
    found = scene.judged(12)
    assert counts(found) == (0, 0, 0)
    assert found.delivered == 3


def test_what_the_end_left_open_is_neither_lost_nor_sent(scene: Scene) -> None:
    scene.report(9.9, PageState(answered=1), acked=False)
    found = scene.judged(10)
    assert counts(found) == (0, 0, 0)
    assert found.sent == 1


def test_a_report_without_ack_that_nobody_saw_is_lost_and_says_so(scene: Scene) -> None:
    scene.report(3.0, PageState(answered=1), acked=False)
    assert scene.judged(10).lost == ["report 2 of s-1 did not reach p-1, nor an ack"]


def test_a_report_that_shows_nothing_new_needs_no_update(scene: Scene) -> None:
    scene.report(3.0, changed=False)
    found = scene.judged(10)
    assert counts(found) == (0, 0, 0)
    assert found.delivered == 2
    assert len(found.delivery) == 1


def test_a_report_still_in_the_outbox_at_the_end_is_lost_unless_the_student_is_gone(scene: Scene) -> None:
    scene.student.reports.append(Report(PageState(answered=1), 2, True, START + 3))
    assert scene.judged(10).lost == ["report 2 of s-1 was never sent"]
    scene.drop(2.9)
    scene.student.gone = True
    assert "report 2 of s-1 was never sent" not in scene.judged(10).lost


def test_a_report_that_went_down_with_a_vanished_connection_is_nobodys_loss() -> None:
    scene = Scene("vanishes")
    scene.report(0.0)
    scene.show(0.030, "active", 1)
    scene.report(8.0, PageState(answered=1), acked=False)
    scene.drop(8.01)
    scene.show(8.05, "reconnecting", 1)
    scene.show(28.1, "offline", 1)
    found = scene.judged(32)
    assert counts(found) == (0, 0, 0)
    assert found.detection == pytest.approx([20.09])
    assert not found.late


def test_a_student_who_came_back_must_not_stay_reconnecting_on_the_screen() -> None:
    scene = Scene("returns")
    scene.report(0.0)
    scene.show(0.030, "active", 1)
    scene.drop(6.0)
    scene.show(6.05, "reconnecting", 1)
    scene.student.lines.append(Line(START + 9))
    scene.report(9.0, changed=False)
    assert "report 2 of s-1 did not reach p-1" in scene.judged(20).lost
    scene.show(9.05, "active", 2)
    assert counts(scene.judged(20)) == (0, 0, 0)


def test_a_proctor_who_was_away_is_judged_by_what_the_new_picture_shows(scene: Scene) -> None:
    scene.proctor.watches[0].ended_at = START + 3
    scene.report(4.0, PageState(answered=1))
    scene.proctor.watches.append(Watch(START + 12, START + 12.1))
    scene.show(12.1, "active", 2, update=False)
    found = scene.judged(20)
    assert counts(found) == (0, 0, 0)
    assert len(found.delivery) == 1  # an absence is no latency


def test_a_picture_that_stayed_wrong_is_lost(scene: Scene) -> None:
    scene.show(3.0, "paused", 1)
    assert scene.judged(10).lost == ["p-1 still shows s-1 as paused, not active"]


def test_the_same_version_in_two_updates_is_a_duplicate_but_not_in_a_snapshot(scene: Scene) -> None:
    seen = scene.proctor.seen[0]
    scene.proctor.seen.append(Seen(START + 1, seen.view, 0, update=False, news=False))
    assert not scene.judged(10).duplicates
    scene.proctor.seen.append(Seen(START + 2, seen.view, 0, update=True, news=False))
    assert scene.judged(10).duplicates == ["version 1 of s-1 came to p-1 again"]


def test_offline_against_the_truth_is_false_and_counted_once_however_often_it_is_told(scene: Scene) -> None:
    scene.show(3.0, "offline", 1)
    scene.show(3.5, "active", 1)
    found = scene.judged(10)
    assert found.false_offline == ["s-1 was called offline while active"]
    assert not found.lost


def test_offline_well_before_its_time_is_false() -> None:
    scene = Scene("vanishes")
    scene.report(0.0)
    scene.show(0.030, "active", 1)
    scene.drop(8.0)
    scene.show(14.0, "offline", 1)
    found = scene.judged(40)
    assert found.false_offline == ["s-1 was called offline while reconnecting"]


def test_offline_that_only_the_journal_claims_is_false_too(scene: Scene) -> None:
    scene.journal(4.0, "offline")
    scene.journal(4.5, "active")
    assert scene.judged(10).false_offline == ["s-1 was called offline while active"]


@pytest.mark.parametrize(("shown_at", "late"), [(29.9, 0), (31.0, 1), (None, 1)])
def test_offline_has_its_time_and_the_deployments_tolerance(shown_at: float | None, late: int) -> None:
    scene = Scene("vanishes")
    scene.report(0.0)
    scene.show(0.030, "active", 1)
    scene.drop(8.0)
    scene.show(8.1, "reconnecting", 1)
    if shown_at is not None:
        scene.show(shown_at, "offline", 1)
    assert len(scene.judged(45).late) == late
    assert not scene.judged(45, Rules("lambda")).late or shown_at is None


def test_a_label_missing_in_the_journal_is_lost_once_though_several_saw_it(scene: Scene) -> None:
    scene.report(3.0, PageState("away"))
    scene.show(3.05, "away", 2)
    found = scene.judged(10, entries=[e for e in scene.entries if e.after != "away"])
    assert found.lost == ["the journal lacks that s-1 turned away (reported)"]


def test_a_label_that_was_shown_but_not_journalled_is_lost(scene: Scene) -> None:
    scene.show(3.0, "paused", 1)
    scene.show(3.5, "active", 1)
    found = scene.judged(10, entries=[e for e in scene.entries if e.after != "paused"])
    assert found.lost == ["s-1 was shown as paused, which the journal lacks"]


def test_a_student_on_the_roster_who_has_not_joined_needs_no_line_in_the_journal() -> None:
    scene = Scene()
    scene.show(1.0, "not_joined")
    scene.report(2.0)
    scene.show(2.03, "active", 1)
    assert counts(scene.judged(10)) == (0, 0, 0)


def test_a_line_and_a_fact_that_are_journalled_twice_are_duplicates(scene: Scene) -> None:
    line = scene.entries[0]
    assert scene.judged(10, entries=[line, line]).duplicates == ["journal line s-1/1/0 is there again"]
    same_fact = Entry(*("compare", "q-1", "s-1", 2, 0), line.at, "label", "reported", "not_joined", "active")
    assert len(scene.judged(10, entries=[line, same_fact]).duplicates) == 1


def test_words_reach_every_proctor_and_the_journal_once(scene: Scene) -> None:
    words = Words("m-1", "chat", "Hello", START + 3, [Attempt(START + 3, 0)], acked_at=START + 3.1)
    scene.student.words.append(words)
    assert set(scene.judged(10).lost) == {"message m-1 did not reach p-1", "the journal lacks message m-1"}
    scene.proctor.messages += [(START + 3.1, "m-1"), (START + 3.2, "m-1")]
    line = Entry("compare", "q-1", "s-1", 9, 0, START + 3, "message", "chat", reference="m-1")
    found = scene.judged(10, entries=[*scene.entries, line])
    assert not found.lost
    assert found.duplicates == ["message m-1 came to p-1 again"]


def test_a_command_reaches_its_student_once_and_its_proctor_hears_of_it(scene: Scene) -> None:
    scene.proctor.orders.append(Order("c-1", "s-1", START + 3))
    assert scene.judged(13.1).lost == ["command c-1 did not reach s-1"]
    scene.student.commands.append(Got(START + 3.1, 0, "c-1", settled=False))
    receipt = Entry("compare", "q-1", "s-1", 9, 0, START + 3, "receipt", "delivered", reference="c-1")
    entries = [*scene.entries, receipt]
    assert scene.judged(13.1, entries=entries).lost == ["p-1 was not told that c-1 was confirmed"]
    scene.proctor.statuses.append(Status(START + 4, "c-1", "s-1", "confirmed"))
    assert counts(scene.judged(13.1, entries=entries)) == (0, 0, 0)
    scene.student.commands.append(Got(START + 3.2, 0, "c-1", settled=False))
    assert scene.judged(13.1, entries=entries).duplicates == ["command c-1 came to s-1 again"]


def test_a_servers_clock_that_is_tens_of_milliseconds_behind_loses_no_unnumbered_report() -> None:
    scene = Scene(client="paper")
    scene.report(0.0)
    scene.show(0.030, "active", last_seen=START - 0.040)
    scene.report(3.0, PageState(answered=1))
    scene.show(3.030, "active", last_seen=START + 2.960)
    assert counts(scene.judged(12)) == (0, 0, 0)
    scene.report(6.0, PageState(answered=2))
    scene.show(6.030, "active", last_seen=START + 5.8)  # of something before it
    assert len(scene.judged(12).lost) == 1


def test_pages_of_the_paper_are_matched_by_the_servers_receive_time() -> None:
    scene = Scene(client="paper")
    scene.report(0.0)
    scene.show(0.030, "active", last_seen=START + 0.004)
    scene.report(5.0, PageState(answered=1))
    scene.show(5.050, "active", last_seen=START + 5.006)
    found = scene.judged(12)
    assert counts(found) == (0, 0, 0)
    assert found.message == pytest.approx([4.0, 6.0])
    assert found.delivery == pytest.approx([30.0, 50.0])
    assert not found.round_trip
    scene.report(13.0, PageState(answered=2))
    assert scene.judged(20).lost[:1] == ["report of Figure 4 of s-1 did not reach p-1"]


def test_the_clock_of_a_foreign_server_is_taken_from_its_quickest_answers(scene: Scene) -> None:
    for report in scene.student.reports:
        report.server_time = report.attempts[0].at + 0.010 + 42.0
    scene.proctor.watches.clear()
    assert clock_offset(scene.recording) == pytest.approx(42.0)
    scene.student.reports.clear()
    assert clock_offset(scene.recording) == 0.0


def test_the_run_is_settled_when_everything_was_seen_or_its_time_is_over(scene: Scene) -> None:
    def left(at: float) -> list[str]:
        return list(unsettled(scene.recording, RULES, START + at))

    assert left(1.0) == []
    scene.report(3.0, PageState(answered=1))
    assert left(3.01) == ["p-1 has not seen the last report of s-1"]
    assert left(8.1) == []
    scene.show(3.02, "active", 2)
    assert left(3.03) == []
    scene.student.waiting = 1
    scene.student.reports[-1].acked_at = None
    assert left(3.04) == ["s-1 has frames in the outbox"]
    scene.student.waiting = 0
    scene.proctor.orders.append(Order("c-1", "s-1", START + 3))
    assert left(3.05) == ["c-1 is not confirmed"]


def test_the_run_waits_for_offline_as_long_as_the_rule_and_the_tolerance_allow() -> None:
    scene = Scene("vanishes")
    scene.report(0.0)
    scene.show(0.030, "active", 1)
    scene.drop(8.0)
    waiting = ["p-1 has not seen s-1 go offline"]
    assert list(unsettled(scene.recording, RULES, START + 30)) == waiting
    assert list(unsettled(scene.recording, RULES, START + 31.1)) == []
    assert list(unsettled(scene.recording, Rules("lambda"), START + 31.1)) == waiting


def entry(at: float, label: str) -> Entry:
    return Entry("compare", "q-1", "s-1", int(at * 1000), 0, at, "label", "", after=label)


def test_a_state_too_short_to_be_inferred_need_not_be_in_the_journal() -> None:
    short = Truth((Shown(8.0, "active", "reconnecting", "dropped"), Shown(11.0, "reconnecting", "active", "reported")))
    assert missing_labels(short, [entry(11.01, "active")], RULES, 60.0) == []
    long = Truth((Shown(8.0, "active", "reconnecting", "dropped"), Shown(15.0, "reconnecting", "active", "reported")))
    assert [c.label for c in missing_labels(long, [entry(15.01, "active")], RULES, 60.0)] == ["reconnecting"]


def test_a_page_that_is_back_before_its_drop_was_heard_of_changed_nothing() -> None:
    story = Truth(
        (
            Shown(5.0, "not_joined", "active", "reported"),
            Shown(8.0, "active", "reconnecting", "dropped"),
            Shown(8.8, "reconnecting", "active", "reported"),
        )
    )
    joined, dropped, back = entry(5.0, "active"), entry(8.1, "reconnecting"), entry(8.8, "active")
    assert missing_labels(story, [joined], RULES, 60.0) == []
    assert missing_labels(story, [joined, dropped, back], RULES, 60.0) == []
    # but a drop that was heard of must be followed by the return
    assert [c.at for c in missing_labels(story, [joined, dropped], RULES, 60.0)] == [8.8]
    assert [c.at for c in missing_labels(story, [], RULES, 60.0)] == [5.0, 8.8]


def test_the_order_of_the_journal_counts() -> None:
    two = Truth((Shown(8.0, "active", "away", "reported"), Shown(9.0, "away", "active", "reported")))
    assert missing_labels(two, [entry(8.01, "away"), entry(9.01, "active")], RULES, 60.0) == []
    assert [c.label for c in missing_labels(two, [entry(8.0, "active"), entry(8.5, "away")], RULES, 60.0)] == ["active"]


def test_a_journal_is_complete_when_the_last_change_is_there() -> None:
    two = {"s-1": Truth((Shown(8.0, "active", "away", "reported"), Shown(9.0, "away", "active", "reported")))}
    first, second = entry(8.01, "away"), entry(9.01, "active")
    assert not is_complete(Journal({"q-1": [first]}, 9.1), two, RULES)
    assert is_complete(Journal({"q-1": [first, second]}, 9.1), two, RULES)
