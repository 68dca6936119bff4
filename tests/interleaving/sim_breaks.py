"""Switches, each of which breaks one of the rules that the shells rely on; a run must then find a violation.

They break what surrounds the product or stand in for a part of it; the product itself has no such switch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import sim_cluster
import sim_lambda
from msgspec.structs import replace
from sim_runs import Run, Seen, run_cluster, run_lambda
from sim_world import Process

from adapters.ec2_cluster import shell as cluster_shell
from adapters.ec2_cluster.broker import Save
from adapters.ec2_cluster.hub import Hub, _Watched
from adapters.ec2_cluster.keys import exam_keys
from adapters.ec2_cluster.worker import Worker
from adapters.lambda_apigw import shell as lambda_shell
from adapters.lambda_apigw.sweep import Sweep
from core import Decision, decide, effects, routing
from core.events import DeadlineReached
from core.journal import Entry
from core.messages import encode
from core.participant import Participant, ParticipantKey


def _last_word(known: Any, received: Any) -> Any:
    return received


# --- rule 2 -----------------------------------------------------------------------------------------------------------------


def _believing(record: Participant, event: Any, exam: Any, now: float) -> Decision:
    """A deadline is taken for the one that is outstanding, and for due."""
    if isinstance(event, DeadlineReached) and record.check_at is not None:
        return decide(record, replace(event, at=record.check_at), exam, max(now, record.check_at))
    return decide(record, event, exam, now)


def _ignoring_early(record: Participant, event: Any, exam: Any, now: float) -> Decision:
    """An early deadline is ignored."""
    if isinstance(event, DeadlineReached) and now < event.at:
        return Decision(record)
    return decide(record, event, exam, now)


# --- rules 3 and 6, serverless ----------------------------------------------------------------------------------------------


class LateDeadlines(sim_lambda.Table):
    """The deadline is stored in a second step."""

    def save(
        self, before: Participant | None, after: Participant, entries: Sequence[Entry], taken: Sequence[str] = ()
    ) -> bool:
        first = replace(after, check_at=None)
        if not super().save(before, first, entries, taken):
            return False
        self.world.io()
        if self.records[after.key] is first:
            self.records[after.key] = after
        return True


class LateEntries(sim_lambda.Table):
    """The journal gets its lines in a second step."""

    def save(
        self, before: Participant | None, after: Participant, entries: Sequence[Entry], taken: Sequence[str] = ()
    ) -> bool:
        if not super().save(before, after, (), taken):
            return False
        if entries:
            self.world.io()
            self.journal.add(entries)
        return True


class EarlyAcks(sim_lambda.Gateway):
    """Acks leave when something is decided, and not when it is saved."""

    def deciding(self, record: Participant, event: Any, exam: Any, now: float) -> Decision:
        decision = decide(record, event, exam, now)
        for effect in decision.effects:
            if isinstance(effect, effects.Ack):
                self.send(effect.connection, encode(effect.frame))
        return replace(decision, effects=tuple(e for e in decision.effects if not isinstance(e, effects.Ack)))

    def _invoke(self, *args: Any) -> None:
        lambda_shell.decide = self.deciding
        super()._invoke(*args)


# --- rules 3, 5 and 6, cluster ----------------------------------------------------------------------------------------------


class LaterDeadlines(sim_cluster.Redis):
    """The deadline is set by another command, after the save."""

    def store(self, process: Process, save: Save) -> None:
        super().store(process, save)
        key, at = save.record.key, save.record.check_at
        self.set_deadline(key, None)
        self.world.after(3 * self.world.random.random(), self._set_later, process, key, at)

    def _set_later(self, process: Process, key: ParticipantKey, at: float | None) -> None:
        if not process.is_dead:
            self.set_deadline(key, at)


class LaterEntries(sim_cluster.Redis):
    """The journal gets its lines by another command, after the save."""

    def store(self, process: Process, save: Save) -> None:
        super().store(process, replace(save, entries=()))
        self.world.after(self.world.latency(), self._add_later, process, save.entries)

    def _add_later(self, process: Process, entries: tuple[Entry, ...]) -> None:
        if not process.is_dead:
            self.journal.add(entries)


async def _no_look(worker: Worker) -> None:
    """Nobody looks for what dead workers left behind."""


_overdue = sim_cluster.Broker.overdue


async def _taking_off(broker: sim_cluster.Broker, now: float) -> list:
    """A deadline is taken off when somebody sees it, not when what it caused is saved."""
    found = await _overdue(broker, now)
    for key, _ in found:
        broker.redis.set_deadline(key, None)
    return found


_flush = cluster_shell.Shell._flush


async def _flush_after_acks(shell: cluster_shell.Shell, dirty: dict) -> None:
    for owned in dirty.values():
        pending = owned.pending
        acks = [effect for effect in pending.after_save if isinstance(effect, effects.Ack)]
        pending.after_save = tuple(effect for effect in pending.after_save if not isinstance(effect, effects.Ack))
        shell._perform(owned.exam, acks)
    await _flush(shell, dirty)


async def _join_late(hub: Hub, exam: Any, connection: Any, groups: Sequence[str]) -> None:
    """The snapshot is read before the subscription has taken hold."""
    hub._exams.setdefault(exam, _Watched()).watchers[connection] = tuple(groups)
    await hub._send_snapshot(exam, [connection])
    await hub.subscriber.subscribe(exam_keys(exam).channel)


# --- all of them ------------------------------------------------------------------------------------------------------------


def _with(run: Run, *patches: Callable[[], Any]) -> Run:
    """The run while these are patched."""

    @functools.wraps(run)
    def patched(seed: int) -> Seen:
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            return run(seed)

    return patched


def _patch(target: Any, name: str, value: Any) -> Callable[[], Any]:
    return lambda: mock.patch.object(target, name, value)


_join = routing.join_proctor

LAMBDA: dict[str, Run] = {
    "1: the last publication is believed, whatever its version": functools.partial(run_lambda, merge=_last_word),
    "2: a deadline is believed without its echo": _with(run_lambda, _patch(lambda_shell, "decide", _believing)),
    "3: deadlines after the save": functools.partial(run_lambda, table=LateDeadlines),
    "3: no sweep": _with(run_lambda, _patch(Sweep, "_decide_rows", lambda *_: None)),
    "3: acks before the save": _with(
        functools.partial(run_lambda, gateway=EarlyAcks), _patch(lambda_shell, "decide", decide)
    ),
    "4: the snapshot before the subscription": _with(
        run_lambda, _patch(routing, "join_proctor", lambda subscribe: _join(subscribe)[::-1])
    ),
    "6: entries after the save": functools.partial(run_lambda, table=LateEntries),
}
CLUSTER: dict[str, Run] = {
    "1: the last publication is believed, whatever its version": functools.partial(run_cluster, merge=_last_word),
    "2: a deadline is believed without its echo": _with(run_cluster, _patch(cluster_shell, "decide", _believing)),
    "2: an early deadline is ignored": _with(run_cluster, _patch(cluster_shell, "decide", _ignoring_early)),
    "3: deadlines after the save": functools.partial(run_cluster, redis=LaterDeadlines),
    "3: no look for orphans": _with(run_cluster, _patch(Worker, "_look", _no_look)),
    "3: acks before the save": _with(run_cluster, _patch(cluster_shell.Shell, "_flush", _flush_after_acks)),
    "4: the snapshot before the subscription": _with(run_cluster, _patch(Hub, "join", _join_late)),
    "5: a deadline is taken off when it is seen": _with(
        run_cluster, _patch(sim_cluster.Broker, "overdue", _taking_off)
    ),
    "6: entries after the save": functools.partial(run_cluster, redis=LaterEntries),
}
