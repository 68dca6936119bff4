"""Whether the five invariants held (see `chaos`): what clients saw, the journal, and what processes still hold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence

from adapters.ec2_cluster.keys import all_partitions
from compare.faults.processes import descriptors, memory_bytes, until
from compare.faults.rig import Rig, Scenario, Verdict
from compare.run.recording import Order, ProctorLog, Recording, Report, StudentLog
from compare.run.workload import SCHOOL
from core.journal import Entry
from core.participant import ExamKey

_LEAK_SECONDS = 10.0
_MEMORY_BYTES = 48 * 2**20
_SPARE_DESCRIPTORS = 3  # a log file, a socket that is just being closed


def judge_views(
    rig: Rig, started_at: float, healed_at: float, settled_at: float, within: float, verdict: Verdict
) -> None:
    """Every proctor was shown every report in time, and nobody as offline; times are those of the load generator's clock."""
    for student in rig.crowd.recording.students:
        name = student.plan.student_id
        for proctor in watchers(rig, student):
            seen = [s for s in proctor.seen if s.news and s.view.student_id == name]
            who = f"{proctor.plan.proctor_id} of {name}"
            reached = iter(seen)
            shown = next(reached, None)
            for report in changed_reports(student):
                while shown is not None and shown.view.seq < report.seq:
                    shown = next(reached, None)
                if shown is None:
                    verdict.breaks("views", f"{who}: report {report.seq} was never shown")
                    break
                made_at = report.created_at
                base = max(made_at, healed_at) if made_at >= started_at - within else made_at
                late = shown.at - base
                verdict.worst = max(verdict.worst, late)
                if made_at <= healed_at:
                    verdict.recovery = max(verdict.recovery, shown.at - healed_at)
                if late > within:
                    verdict.breaks("views", f"{who}: report {report.seq} came {late:.2f} s late")
            for one, then in itertools.pairwise([*seen, None]):
                assert one is not None  # only the last is
                until_then = settled_at if then is None else then.at
                if one.view.label == "reconnecting" and until_then - max(one.at, healed_at) > within:
                    verdict.breaks("views", f"{who}: reconnecting for {until_then - max(one.at, healed_at):.1f} s")
                if one.view.label == "offline":
                    verdict.breaks("offline", f"{who}: shown offline")
            if is_behind(student, proctor):
                view = proctor.views.get(name)
                verdict.breaks("views", f"{who}: in the end {view and (view.seq, view.label)}")


async def judge_journal(rig: Rig, seconds: float, verdict: Verdict) -> None:
    """Once all outboxes are empty every report was acknowledged, so the journal must tell the same story."""
    recording = rig.crowd.recording

    async def story_is_whole() -> list[str]:
        missing: list[str] = []
        for quiz_id in recording.schedule.quiz_ids:
            entries = await asyncio.to_thread(rig.cluster.journal, ExamKey(SCHOOL, quiz_id))
            by_student: dict[str, list[Entry]] = {}
            for entry in entries:
                by_student.setdefault(entry.student_id, []).append(entry)
            for student in recording.students:
                if student.plan.quiz_id == quiz_id:
                    missing += contradictions(student, by_student.get(student.plan.student_id, []))
            for proctor in recording.proctors_of(quiz_id):
                for order in proctor.orders:
                    kept = [
                        e
                        for e in by_student.get(order.student_id, [])
                        if e.kind == "command" and e.reference == order.command_id and e.after == "accepted"
                    ]
                    if order.acked_at is not None and len(kept) != 1:
                        missing.append(f"{order.command_id} for {order.student_id} is there {len(kept)} times")
        return missing

    deadline = time.monotonic() + seconds
    while (found := await story_is_whole()) and time.monotonic() < deadline:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.2)
    for what in found:
        verdict.breaks("journal", what)
    for order in undelivered(recording):
        verdict.breaks("journal", f"{order.command_id} was acknowledged and never reached {order.student_id}")


def undelivered(recording: Recording) -> Iterator[Order]:
    """Commands that were acknowledged and have not come to the student's page."""
    for student in recording.students:
        got = {command.command_id for command in student.commands}
        for proctor in recording.proctors_of(student.plan.quiz_id):
            for order in proctor.orders:
                if order.student_id == student.plan.student_id and order.acked_at and order.command_id not in got:
                    yield order


def contradictions(student: StudentLog, entries: Sequence[Entry]) -> Iterator[str]:
    """Where the journal does not tell what a page had acknowledged, in words; the page stayed, and its outbox is empty."""
    name = student.plan.student_id
    labels = [entry for entry in entries if entry.kind == "label"]
    for entry in labels:
        if entry.after == "offline":
            yield f"{name} is offline in the journal"
    acked = [report for report in student.reports if report.acked_at is not None]
    if len(acked) != len(student.reports):
        yield f"{name}: {len(student.reports) - len(acked)} reports were never acknowledged"
    told = [status for status, _ in itertools.groupby(report.state.status for report in acked)]
    kept = [label for label, _ in itertools.groupby(e.after for e in labels if e.after in ("active", "away"))]
    if told != kept:
        at = next((i for i, (a, b) in enumerate(zip(told, kept, strict=False)) if a != b), min(len(told), len(kept)))
        yield f"{name}: change {at + 1} of {len(told)} is not as reported; the journal has {len(kept)}"
    for one, then in itertools.pairwise(labels):
        if then.before != one.after:
            yield f"{name}: after {one.after} comes a change from {then.before} to {then.after} (version {then.version})"


def judge_memory(rig: Rig, before: dict[int, tuple[int, int]], verdict: Verdict) -> None:
    """`before`: of each worker at the start, open files and bytes of memory."""
    for pid in rig.cluster.pids()["worker"]:
        if pid in before and (grown := memory_bytes(pid) - before[pid][1]) > _MEMORY_BYTES:
            verdict.breaks("memory", f"a worker grew by {grown / 2**20:.0f} MiB")


async def judge_leaks(rig: Rig, scenario: Scenario, before: dict[int, tuple[int, int]], verdict: Verdict) -> None:
    """All clients are gone: what workers and Redis still hold is theirs, or leaked."""
    workers = rig.cluster.pids()["worker"]

    def held() -> list[str]:
        return [
            f"a worker holds {descriptors(pid)} files, {before[pid][0]} at the start"
            for pid in workers
            if pid in before and descriptors(pid) > before[pid][0] + _SPARE_DESCRIPTORS
        ]

    with contextlib.suppress(TimeoutError):
        await until(lambda: not held(), "closed connections", _LEAK_SECONDS)
    for what in held():
        verdict.breaks("leaks", what)
    expected = 4 - 2 * scenario.lost_instances
    if len(workers) != expected:
        verdict.breaks("leaks", f"{len(workers)} workers run, {expected} expected")
    client = rig.redis()

    def subscribers() -> int:
        return len(client.client_list(_type="pubsub"))

    with contextlib.suppress(TimeoutError):
        await until(lambda: subscribers() == len(workers), "one subscriber a worker", _LEAK_SECONDS)
    if subscribers() != len(workers):
        verdict.breaks("leaks", f"{subscribers()} subscribers for {len(workers)} workers")
    listening = [channel for channel in client.pubsub_channels() if b"}w:" in channel]
    if len(listening) != len(workers) * len(all_partitions()):
        verdict.breaks("leaks", f"{len(listening)} channels of workers, for {len(workers)} workers")


# --- what is asked of a page and a dashboard ------------------------------------------------------------------------------


def watchers(rig: Rig, student: StudentLog) -> list[ProctorLog]:
    """The dashboards that have the student on them."""
    return rig.crowd.recording.proctors_of(student.plan.quiz_id)


def is_behind(student: StudentLog, proctor: ProctorLog) -> bool:
    """Whether this dashboard does not show what the page said last."""
    view, last = proctor.views.get(student.plan.student_id), changed_reports(student)[-1]
    return view is None or view.seq < last.seq or view.label != last.state.status


def changed_reports(student: StudentLog) -> list[Report]:
    """The reports that a proctor must be shown."""
    return [report for report in student.reports if report.changed]
