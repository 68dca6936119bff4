"""From what clients saw to figures: latencies, and what was lost, doubled or wrongly called offline.

lost            a report after which neither it nor a later state reached every proctor in time; a picture that stayed wrong; words,
                commands and receipts that did not arrive; and each change of label that the journal does not have
duplicates      a transition, message or command that a proctor or student got twice, or that is in the journal twice
false offline   a student shown or journalled as offline whom the truth (`truth`) has there

A report that went down with a connection which never came back is nobody's loss: it left no trace on our side of the network.
What the end of the run left undecided is not counted either.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, field

from compare.run.recording import ProctorLog, Recording, Report, Seen, StudentLog
from compare.run.truth import Shown, Truth, reached_server, replay
from core.journal import Entry
from core.messages import View
from core.participant import Home
from core.policy import Policy

SEEN_SECONDS = 5.0
"""How long an update may take to every proctor before it counts as lost."""
OFFLINE_TOLERANCE: Mapping[Home, float] = {"ec2": 2.0, "lambda": 12.0}
"""How much later than the rule *offline* may come: the cluster looks at its deadlines all the time, the sweep every ten seconds."""
CLOCK_SLACK = 0.050
"""How far a server's receive time may lie before the sending of an unnumbered report. Servers cut theirs to milliseconds, and the
cluster's clock is Redis's to within half of the round trip of one sample, which on a busy machine is tens of milliseconds. The
shortest interval between two reports of a page is more than three times as long, so none is taken for the one before it."""
_EARLY_SECONDS = 1.0  # how far the journal may lead the truth, which knows nothing of frames without an answer
_TRUTH_LEAD_SECONDS = 0.5


class Rules(Struct, frozen=True):
    """Against what a run is judged."""

    here: Home
    policy: Policy = Policy()
    clock_offset: float = 0.0  # the server's clock minus ours

    @property
    def offline_seconds(self) -> float:
        """From the loss of a connection to *offline*, at the latest."""
        return self.policy.closed_grace_seconds + OFFLINE_TOLERANCE[self.here]


class Findings(Struct):
    """What a run came to. Times are in milliseconds, `detection` in seconds; the lists of words have one entry per case."""

    message: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)
    delivery: list[float] = field(default_factory=list)
    sent: int = 0
    delivered: int = 0
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    false_offline: list[str] = field(default_factory=list)
    detection: list[float] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


class _Screen:
    """What one proctor saw of one student, prepared for questions."""

    def __init__(self, seen: Sequence[Seen], numbered: bool) -> None:
        self.seen = seen
        self.times = [s.at for s in seen]
        self._reach: list[float] = []
        highest = 0.0
        for s in seen:
            highest = max(highest, _reach(s.view, numbered))
            self._reach.append(highest)

    def first_reaching(self, wanted: float) -> Seen | None:
        """The first view that carries this report or a later one."""
        index = bisect.bisect_left(self._reach, wanted)
        return self.seen[index] if index < len(self.seen) else None

    def label_at(self, at: float) -> str:
        """What stood on the screen; empty before the student appeared."""
        index = bisect.bisect_right(self.times, at)
        shown: View | None = None
        for s in self.seen[:index]:
            if s.news:
                shown = s.view
        return shown.label if shown else ""

    def changes(self) -> Iterable[tuple[Seen, View | None]]:
        """The changes of label, each with the view before it."""
        before: View | None = None
        for s in self.seen:
            if s.news:
                if before is None or before.label != s.view.label:
                    yield s, before
                before = s.view


class Journal(Struct, frozen=True):
    """The entries by exam, as they were when they were read."""

    entries: Mapping[str, Sequence[Entry]]
    read_at: float


def judge_run(recording: Recording, rules: Rules, truth: Mapping[str, Truth], journal: Journal | None) -> Findings:
    """All findings of a run that was stopped. Without a journal, nobody has access to it."""
    judge = _Judge(recording, rules, truth)
    for student in recording.students:
        judge.student(student)
    judge.conversations()
    if journal is not None:
        for quiz_id in recording.schedule.quiz_ids:
            judge.journal(journal.entries.get(quiz_id, ()), quiz_id, journal.read_at)
    return judge.findings


def is_complete(journal: Journal, truth: Mapping[str, Truth], rules: Rules) -> bool:
    """Whether the journal has every change of label that will ever be in it."""
    labels: dict[str, list[Entry]] = defaultdict(list)
    for entries in journal.entries.values():
        for entry in sorted(entries, key=lambda e: (e.version, e.n)):
            if entry.kind == "label":
                labels[entry.student_id].append(entry)
    read_at = journal.read_at + SEEN_SECONDS
    return not any(missing_labels(one, labels[student_id], rules, read_at) for student_id, one in truth.items())


def clock_offset(recording: Recording) -> float:
    """The server's clock minus ours, from the quickest tenth of the answers, as if both ways took the same time."""
    trips = [
        (report.attempts[-1].at, report.server_time, report.acked_at)
        for student in recording.students
        for report in student.reports
        if report.acked_at is not None and report.server_time is not None
    ]
    trips += [
        (watch.asked_at, watch.server_time, watch.complete_at)
        for proctor in recording.proctors
        for watch in proctor.watches
        if watch.complete_at is not None
    ]
    trips.sort(key=lambda trip: trip[2] - trip[0])
    quickest = sorted(server - (sent + answered) / 2 for sent, server, answered in trips[: max(1, len(trips) // 10)])
    return quickest[len(quickest) // 2] if quickest else 0.0


def truths(recording: Recording, rules: Rules) -> dict[str, Truth]:
    """The truth about every student of a run that was stopped."""
    return {student.plan.student_id: _truth(student, recording, rules) for student in recording.students}


def _truth(student: StudentLog, recording: Recording, rules: Rules, whatever_was_sent: bool = False) -> Truth:
    assert recording.stopped_at is not None  # a run is judged when it is over
    promise = promise_ms(recording)
    return replay(student, rules.here, rules.policy, recording.stopped_at, promise, whatever_was_sent)


def promise_ms(recording: Recording) -> int | None:
    """What an active page promises; the paper's promises nothing."""
    return round(recording.schedule.plan.interval * 1100) if recording.client == "proctorwire" else None


def unsettled(recording: Recording, rules: Rules, now: float) -> Iterable[str]:
    """What is still to be seen, in words, and may still come in time. Nothing: the run can end."""
    for student in recording.students:
        yield from _unanswered(student, now)
        latest = next((r for r in reversed(student.reports) if r.changed and _was_sent(student, r)), None)
        for proctor in recording.proctors_of(student.plan.quiz_id):
            yield from _unseen(student, latest, proctor, recording, rules, now)
    for proctor in recording.proctors:
        for order in proctor.orders:
            confirmed = any(s.command_id == order.command_id and s.outcome == "confirmed" for s in proctor.statuses)
            if not confirmed and now < order.sent_at + 2 * SEEN_SECONDS:
                yield f"{order.command_id} is not confirmed"


def _unanswered(student: StudentLog, now: float) -> Iterable[str]:
    """Frames of a page that was not told yet that they arrived."""
    if student.waiting and not student.gone:
        begun = [r.created_at for r in student.reports if r.acked_at is None]
        begun += [w.created_at for w in student.words if w.acked_at is None]
        begun += [got.at for got in student.commands]
        if begun and now < max(begun) + 2 * SEEN_SECONDS:
            yield f"{student.plan.student_id} has frames in the outbox"


def _unseen(
    student: StudentLog, latest: Report | None, proctor: ProctorLog, recording: Recording, rules: Rules, now: float
) -> Iterable[str]:
    """What this dashboard does not show yet of this student."""
    student_id, proctor_id = student.plan.student_id, proctor.plan.proctor_id
    view = proctor.views.get(student_id)
    if student.gone:
        line = student.lines[-1] if student.lines else None
        if line is not None and line.closed_at is not None and (view is None or view.label != "offline"):
            patience = SEEN_SECONDS if line.end == "left" else rules.offline_seconds + 1.0
            if now < line.closed_at + patience:
                yield f"{proctor_id} has not seen {student_id} go offline"
    elif latest is not None and now < latest.attempts[-1].at + SEEN_SECONDS:
        numbered = recording.client == "proctorwire"
        if view is None or _reach(view, numbered) < _wanted(latest, numbered, rules.clock_offset):
            yield f"{proctor_id} has not seen the last report of {student_id}"
    for words in student.words:
        if (
            all(words.message_id != message_id for _, message_id in proctor.messages)
            and now < words.created_at + SEEN_SECONDS
        ):
            yield f"{proctor_id} has not heard {words.message_id}"


def _was_sent(student: StudentLog, report: Report) -> bool:
    """Whether the report surely left the student's side of the network."""
    return any(reached_server(attempt, student.lines, report.acked_at, report.seq > 0) for attempt in report.attempts)


def _wanted(report: Report, numbered: bool, offset: float) -> float:
    """What the `_reach` of a view must be, if it carries this report or a later one."""
    return float(report.seq) if numbered else report.attempts[0].at + offset - CLOCK_SLACK


def _reach(view: View, numbered: bool) -> float:
    return float(view.seq) if numbered else view.last_seen


class _Judge:
    def __init__(self, recording: Recording, rules: Rules, truth: Mapping[str, Truth]) -> None:
        assert recording.stopped_at is not None  # a run is judged when it is over
        self.recording = recording
        self.rules = rules
        self.findings = Findings()
        self._stopped_at = recording.stopped_at
        self._numbered = recording.client == "proctorwire"
        self._truths = truth
        self._watchers = {quiz_id: recording.proctors_of(quiz_id) for quiz_id in recording.schedule.quiz_ids}
        self._screens = {p.plan.proctor_id: _screens(p, self._numbered) for p in recording.proctors}
        self._empty = _Screen((), self._numbered)
        self._called_offline: set[tuple[str, float]] = set()

    # --- what proctors saw of a student ---------------------------------------------------------------------------------------

    def student(self, student: StudentLog) -> None:
        """Everything about one student but their words."""
        self._time(student)
        losses = {p.plan.proctor_id: False for p in self._watchers[student.plan.quiz_id]}
        good = True
        for report in student.reports:
            verdict = self._report(student, report, losses)
            if verdict is None:
                continue
            good = verdict if report.changed or not verdict else good
            self.findings.sent += 1
            self.findings.delivered += good
        for proctor in self._watchers[student.plan.quiz_id]:
            screen = self._screen(proctor, student)
            self._repeated_updates(proctor, student, screen)
            self._offline_claims(student, screen)
            if not losses[proctor.plan.proctor_id]:
                self._final_picture(proctor, student)
        self._detection(student)

    def _time(self, student: StudentLog) -> None:
        """Message latency and round trip, from the attempt that was answered."""
        offset = self.rules.clock_offset
        for report in student.reports:
            if report.acked_at is not None and report.server_time is not None:
                sent_at = report.attempts[-1].at
                self.findings.round_trip.append((report.acked_at - sent_at) * 1000)
                self.findings.message.append(max(0.0, report.server_time - offset - sent_at) * 1000)

    def _report(self, student: StudentLog, report: Report, losses: dict[str, bool]) -> bool | None:
        """Whether a report reached every proctor; None if nobody can say (yet)."""
        if not report.attempts:
            waited = self._stopped_at - report.created_at
            if student.gone or waited < SEEN_SECONDS or not student.lines or student.lines[-1].end == "dropped":
                return None
            self._lose(f"report {report.seq} of {student.plan.student_id} was never sent")
            return False
        if not _was_sent(student, report) and (student.gone or not self._numbered):
            return None
        everywhere: bool | None = True
        for proctor in self._watchers[student.plan.quiz_id]:
            reached = self._reached(student, report, proctor)
            if reached is False:
                losses[proctor.plan.proctor_id] = True
                name = f"report {report.seq or 'of Figure 4'} of {student.plan.student_id}"
                unanswered = ", nor an ack" if self._numbered and report.acked_at is None else ""
                self._lose(f"{name} did not reach {proctor.plan.proctor_id}{unanswered}")
            if reached is not True and everywhere is not False:
                everywhere = reached
        return everywhere

    def _reached(self, student: StudentLog, report: Report, proctor: ProctorLog) -> bool | None:
        """Whether this report or a later state came to this proctor in time; None if the time is not over."""
        screen = self._screen(proctor, student)
        sent_at = report.attempts[-1].at
        base = _watching_from(proctor, sent_at)
        deadline = (sent_at if base is None else base) + SEEN_SECONDS
        seen = screen.first_reaching(_wanted(report, self._numbered, self.rules.clock_offset))
        if seen is not None and seen.at <= deadline:
            self._time_delivery(report, proctor, seen)
            return True
        if base is None:
            return None
        if not report.changed:
            opens = report.attempts[0].line > 0 and _first_on_its_line(student, report)
            if not opens or screen.label_at(deadline) not in ("reconnecting", "offline"):
                return True  # nothing new to show
        return False if self._stopped_at >= deadline else None

    def _time_delivery(self, report: Report, proctor: ProctorLog, seen: Seen) -> None:
        """From the send to the proctor's receipt, of what changed the picture while the proctor was watching."""
        attempt = next((a for a in reversed(report.attempts) if a.at <= seen.at), report.attempts[0])
        if report.changed and seen.update and proctor.watches[seen.watch].asked_at <= attempt.at:
            self.findings.delivery.append((seen.at - attempt.at) * 1000)
            if not self._numbered and proctor is self._watchers[proctor.plan.quiz_id][0]:
                # No ack says when a report came in, but the view that it changed does.
                self.findings.message.append(max(0.0, self._here(seen.view.last_seen) - attempt.at) * 1000)

    def _repeated_updates(self, proctor: ProctorLog, student: StudentLog, screen: _Screen) -> None:
        """The same version in two updates of one subscription."""
        times = Counter((s.watch, s.view.version) for s in screen.seen if s.update)
        for (_, version), count in times.items():
            for _ in range(count - 1):
                self.findings.duplicates.append(
                    f"version {version} of {student.plan.student_id} came to {proctor.plan.proctor_id} again"
                )

    def _offline_claims(self, student: StudentLog, screen: _Screen) -> None:
        for seen, before in screen.changes():
            if seen.view.label == "offline" and before is not None:
                since = seen.view.offline_since
                self._offline_claim(student, seen.at, float(seen.view.version) if since is None else since)

    def _offline_claim(self, student: StudentLog, at: float, key: float) -> None:
        """Somebody says that the student was offline: at no time shortly before was that true?"""
        student_id = student.plan.student_id
        if (student_id, key) in self._called_offline:
            return
        start, end = at - SEEN_SECONDS, at + _TRUTH_LEAD_SECONDS
        if "offline" in self._truths[student_id].labels_between(start, end):
            return
        if "offline" in _truth(student, self.recording, self.rules, whatever_was_sent=True).labels_between(start, end):
            return  # true if the server got a frame that went out just before its connection dropped
        self._called_offline.add((student_id, key))
        label = self._truths[student_id].label_at(at)
        self.findings.false_offline.append(f"{student_id} was called offline while {label}")

    def _final_picture(self, proctor: ProctorLog, student: StudentLog) -> None:
        """At the end the dashboard shows what is true, or was a moment before."""
        watch = proctor.watches[-1] if proctor.watches else None
        if watch is None or watch.complete_at is None or self._stopped_at - watch.asked_at < SEEN_SECONDS:
            return
        lag = max(SEEN_SECONDS, OFFLINE_TOLERANCE[self.rules.here])
        right = self._truths[student.plan.student_id].labels_between(self._stopped_at - lag, self._stopped_at)
        view = proctor.views.get(student.plan.student_id)
        label = view.label if view else "not_joined"
        if label not in right and label != "offline":  # a wrong *offline* is counted as such
            expected = " or ".join(sorted(right))
            self._lose(f"{proctor.plan.proctor_id} still shows {student.plan.student_id} as {label}, not {expected}")

    def _detection(self, student: StudentLog) -> None:
        """How long a dropped connection that never came back took to show as offline."""
        if student.plan.part != "vanishes" or not student.gone or not student.lines:
            return
        dropped_at = student.lines[-1].closed_at
        if dropped_at is None:
            return
        limit = self.rules.offline_seconds
        moments = [
            next(
                (s.at for s in self._screen(p, student).seen if s.view.label == "offline" and s.at >= dropped_at), None
            )
            for p in self._watchers[student.plan.quiz_id]
            if p.watches and p.watches[-1].ended_at is None
        ]
        if any(moment is None for moment in moments):
            if self._stopped_at >= dropped_at + limit:
                self.findings.late.append(f"{student.plan.student_id} was not shown offline within {limit:g} s")
        elif moments:
            took = max(moment for moment in moments if moment is not None) - dropped_at
            self.findings.detection.append(took)
            if took > limit:
                self.findings.late.append(
                    f"{student.plan.student_id} was shown offline after {took:.1f} s, not {limit:g} s"
                )

    # --- what people said to each other ---------------------------------------------------------------------------------------

    def conversations(self) -> None:
        """Messages of students and commands of proctors: each arrives, and once."""
        students = {s.plan.student_id: s for s in self.recording.students}
        for proctor in self.recording.proctors:
            heard = Counter(message_id for _, message_id in proctor.messages)
            for message_id, count in heard.items():
                self._again(f"message {message_id} came to {proctor.plan.proctor_id} again", count - 1)
            for student in self.recording.students:
                if student.plan.quiz_id == proctor.plan.quiz_id:
                    self._words(student, proctor, heard)
            for order in proctor.orders:
                self._order(order.command_id, order.sent_at, students[order.student_id], proctor)
        for student in self.recording.students:
            arrivals = Counter((got.command_id, got.line) for got in student.commands)
            for (command_id, _), count in arrivals.items():
                self._again(f"command {command_id} came to {student.plan.student_id} again", count - 1)
            for got in student.commands:
                if got.settled and arrivals[got.command_id, got.line] == 1:
                    self._again(f"command {got.command_id} came to {student.plan.student_id} after its receipt", 1)

    def _words(self, student: StudentLog, proctor: ProctorLog, heard: Counter[str]) -> None:
        for words in student.words:
            if not words.attempts or words.message_id in heard:
                continue
            sent_at = words.attempts[-1].at
            if _watching_from(proctor, sent_at) == sent_at and self._stopped_at >= sent_at + SEEN_SECONDS:
                self._lose(f"message {words.message_id} did not reach {proctor.plan.proctor_id}")

    def _order(self, command_id: str, sent_at: float, student: StudentLog, proctor: ProctorLog) -> None:
        if student.gone or not student.lines or self._stopped_at < sent_at + 2 * SEEN_SECONDS:
            return
        if not any(got.command_id == command_id for got in student.commands):
            self._lose(f"command {command_id} did not reach {student.plan.student_id}")
        elif _watching_from(proctor, sent_at) == sent_at and not any(
            status.command_id == command_id and status.outcome == "confirmed" for status in proctor.statuses
        ):
            self._lose(f"{proctor.plan.proctor_id} was not told that {command_id} was confirmed")

    # --- what is written down -------------------------------------------------------------------------------------------------

    def journal(self, entries: Sequence[Entry], quiz_id: str, read_at: float) -> None:
        """One exam's journal: complete, and without repetition."""
        self.findings.duplicates += repeated_lines(entries)
        by_student: dict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(entries, key=lambda e: (e.version, e.n)):
            by_student[entry.student_id].append(entry)
        for student in self.recording.students:
            if student.plan.quiz_id == quiz_id:
                self._journal_of(student, by_student[student.plan.student_id], read_at)

    def _journal_of(self, student: StudentLog, entries: Sequence[Entry], read_at: float) -> None:
        student_id = student.plan.student_id
        labels = [e for e in entries if e.kind == "label" and self._here(e.at) <= self._stopped_at]
        missing = missing_labels(self._truths[student_id], labels, self.rules, read_at)
        for change in missing:
            self._lose(f"the journal lacks that {student_id} turned {change.label} ({change.cause})")
        for entry in labels:
            if entry.after == "offline":
                self._offline_claim(student, self._here(entry.at), entry.at)
        known = {change.label for change in missing}
        shown = {
            (seen.view.label, before.version if before else 0, seen.view.version)
            for proctor in self._watchers[student.plan.quiz_id]
            for seen, before in self._screen(proctor, student).changes()
            if seen.view.label not in known and (before or seen.view.label != "not_joined")
        }
        for label in sorted({label for label, first, last in shown if not _has(labels, label, first, last)}):
            self._lose(f"{student_id} was shown as {label}, which the journal lacks")
        said = {e.reference for e in entries if e.kind == "message"}
        for words in student.words:
            if words.acked_at is not None and words.message_id not in said:
                self._lose(f"the journal lacks message {words.message_id}")
        received = {e.reference for e in entries if e.kind == "receipt"}
        for command_id in {got.command_id for got in student.commands if got.settled or student.waiting == 0}:
            if command_id not in received:
                self._lose(f"the journal lacks the receipt for {command_id}")

    # --- small things ---------------------------------------------------------------------------------------------------------

    def _here(self, server_time: float) -> float:
        """A time of the server on our clock."""
        return server_time - self.rules.clock_offset

    def _screen(self, proctor: ProctorLog, student: StudentLog) -> _Screen:
        return self._screens[proctor.plan.proctor_id].get(student.plan.student_id, self._empty)

    def _lose(self, what: str) -> None:
        self.findings.lost.append(what)

    def _again(self, what: str, times: int) -> None:
        self.findings.duplicates += [what] * times


def repeated_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Lines that are there again, and facts that two lines tell."""
    keys = Counter((e.student_id, e.version, e.n) for e in entries)
    for key, count in keys.items():
        yield from [f"journal line {'/'.join(map(str, key))} is there again"] * (count - 1)
    facts = Counter(_fact(e) for e in {(e.student_id, e.version, e.n): e for e in entries}.values())
    for fact, count in facts.items():
        yield from [f"the journal says twice: {' '.join(map(str, fact))}"] * (count - 1)


def missing_labels(truth: Truth, labels: Sequence[Entry], rules: Rules, now: float) -> list[Shown]:
    """The changes of label that should be among these entries by now, in their order, and are not.

    A state that the server had to infer need not be there if it was over before a proctor had to see it. If it is not, then what
    ended it changed nothing: on Lambda `$disconnect` may come after the page that is back.
    """
    missing: list[Shown] = []
    place, held = 0, ""  # as far as the entries have come, and with which label
    for change in truth.shown:
        inferred = change.cause not in ("reported", "left")
        patience = SEEN_SECONDS + (OFFLINE_TOLERANCE[rules.here] if change.cause == "deadline" else 0.0)
        if now < change.at + patience:
            continue
        lasted = truth.until(change, now)
        excused = inferred and lasted < patience
        latest = change.at + (lasted if excused else patience)
        found = next(
            (
                index
                for index in range(place, len(labels))
                if labels[index].after == change.label
                and change.at - _EARLY_SECONDS <= labels[index].at - rules.clock_offset <= latest
            ),
            None,
        )
        if found is not None:
            place, held = found + 1, change.label
        elif not excused and change.label != held:
            missing.append(change)
    return missing


def _screens(proctor: ProctorLog, numbered: bool) -> dict[str, _Screen]:
    by_student: dict[str, list[Seen]] = defaultdict(list)
    for seen in proctor.seen:
        by_student[seen.view.student_id].append(seen)
    return {student_id: _Screen(seen, numbered) for student_id, seen in by_student.items()}


def _watching_from(proctor: ProctorLog, at: float) -> float | None:
    """From when on a proctor could see what was sent `at`; None if they were not there (again)."""
    for watch in proctor.watches:
        stays = watch.ended_at is None or watch.ended_at >= at + SEEN_SECONDS
        if watch.asked_at <= at and stays:
            return at
        if watch.asked_at > at and stays:
            return watch.asked_at
    return None


def _first_on_its_line(student: StudentLog, report: Report) -> bool:
    line = report.attempts[-1].line
    first = min((a.at for r in student.reports for a in r.attempts if a.line == line), default=None)
    return any(a.at == first for a in report.attempts)


def _has(labels: Sequence[Entry], label: str, after: int, until: int) -> bool:
    """Whether a change to this label is written down with a version after the one and up to the other."""
    return any(e.after == label and after < e.version <= until for e in labels)


def _fact(entry: Entry) -> tuple[object, ...]:
    """What a journal line says happened, apart from its key: the same fact twice is a duplicate."""
    if entry.kind == "label":
        return (entry.student_id, "label", entry.before, entry.after, entry.cause, entry.at)
    if entry.kind in ("message", "command", "receipt"):
        return (entry.student_id, entry.kind, entry.reference, entry.after)
    return (entry.student_id, entry.kind, entry.cause, entry.before, entry.after, entry.at)
