"""The shell of a worker: which participants it owns, what is decided about them, and what is saved when.

A worker becomes the owner of a participant when the student's page reports on one of its connections. From then on its memory
is the truth: events are decided at once, and each tick saves what has changed, with entries and deadlines, in one atomic step
an exam; sends, closes and acks follow the save. If a save is refused, another worker is the owner: the copy is dropped and the
events since the last save go to the inbox; nothing of them was acked. A worker that is not the owner appends to the inbox too.

Nothing here touches a socket, Redis or a clock: they come as `Broker`, `Sockets`, `now` and `spawn`, so that a simulator can run
the same code with crashes at every step.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol, assert_never

from msgspec.structs import replace

from adapters.ec2_cluster.broker import Broker, Claimed, Save, Waiting
from adapters.ec2_cluster.frames import grouped, incidents_frame, status_frames
from adapters.ec2_cluster.memory import Memory
from adapters.ec2_cluster.owned import AfterSave, Batch, Owned, Pending, taken
from adapters.ec2_cluster.redis_client import RedisError, RedisUnavailable
from core import effects, messages
from core.decide import decide
from core.decide_exam import decide_exam
from core.effects import Ack, Close, Forward, PublishCommandStatus, PublishMessage, PublishView, Send, SetDeadline
from core.events import (
    CommandIssued,
    DeadlineReached,
    ExamEvent,
    OwnerLost,
    ParticipantEvent,
    StatusReported,
)
from core.exam import Exam, new_exam
from core.messages import encode
from core.migration import Move, handed_over, speaks_protocol
from core.participant import ExamKey, Home, Participant, ParticipantKey, new_participant

HERE: Home = "ec2"
OTHER_SIDE: Home = "lambda"
RETENTION_SECONDS = 86_400
"""How long Redis keeps an exam after it was closed."""
_MAX_WAITING = 256
_EXAM_ATTEMPTS = 8
_EVERYONE_CHUNK = 200


class Sockets(Protocol):
    """Connections of all workers, by the names that events carry."""

    def send(self, exam: ExamKey, connection: str, payload: bytes) -> None:
        """Send a frame; one that is lost on the way is no error."""

    def close(self, exam: ExamKey, connection: str, code: int, reason: str) -> None:
        """Hang up."""


class Hold(NamedTuple):
    """What has to wait while owners write back: claims in these exams and, if `saves`, whatever is decided there."""

    is_about: Callable[[ExamKey], bool]
    saves: bool


class Shell:
    """The participants of one worker."""

    def __init__(
        self,
        worker: str,
        broker: Broker,
        sockets: Sockets,
        now: Callable[[], float],
        spawn: Callable[[Coroutine[None, None, None]], None],
        wake: Callable[[], None],
    ) -> None:
        """`spawn` runs a coroutine beside the caller; `wake` asks for a `flush` soon."""
        self.worker = worker
        self.exams: dict[ExamKey, Exam] = {}
        self._broker = broker
        self._sockets = sockets
        self._now = now
        self._spawn = spawn
        self._wake = wake
        self._owned: dict[ParticipantKey, Owned] = {}
        self._of_exam: defaultdict[ExamKey, set[ParticipantKey]] = defaultdict(set)
        self._claiming: dict[ParticipantKey, list[ParticipantEvent]] = {}
        self._dirty: dict[ParticipantKey, Owned] = {}
        self._timers: list[tuple[float, ParticipantKey]] = []
        self._flushing = 0
        self._saving: set[ExamKey] = set()
        self._waiting: dict[ParticipantKey, Owned] = {}
        self._not_saved: set[ExamKey] = set()
        self._passing: dict[ParticipantKey, list[ParticipantEvent]] = {}
        self._pausing: list[asyncio.Future[None]] = []
        self._holds: list[Hold] = []
        self.memory = Memory()

    # --- events come in ---

    def handle(self, key: ParticipantKey, event: ParticipantEvent, *, claim: bool = False) -> None:
        """Bring an event to its participant: decided here if this worker owns it, else by the owner.

        `claim`: become the owner first, because the student's page is (now) connected here.
        """
        owned = self._owned.get(key)
        if claim and owned is not None and owned.record.home != HERE:
            self._drop(key, owned)  # the page has come here: ask again for its home
            owned = None
        if owned is not None:
            owned.page_came = owned.page_came or claim
            self._decide(owned, event)
        elif key in self._claiming:
            waiting = self._claiming[key]
            if len(waiting) < _MAX_WAITING:  # beyond that the page sends again: nothing of it was acked
                waiting.append(event)
        elif claim:
            self._claiming[key] = [event]
            self._spawn(self._claim(key, home=True))
        else:
            self._spawn(self._pass_on(key, [event]))

    def nudge(self, key: ParticipantKey) -> None:
        """The inbox of this participant has news, and Redis names us as the owner."""
        owned = self._owned.get(key)
        if owned is None:
            # We claimed it and never heard so, or heard no more after it. Nobody else will look after it while we live.
            self._spawn(self.take_over(key))
        elif owned.reading_inbox:
            owned.nudged = True
        else:
            owned.reading_inbox = True
            self._spawn(self._read_inbox(key, owned))

    async def command(self, keys: Sequence[ParticipantKey], event: CommandIssued) -> None:
        """Bring a proctor's command to participants: when this returns, it is kept, so it may be acked."""
        unknown = []
        for key in keys:
            appended = await self._broker.append(key, [event], must_exist=True)
            if appended.known:
                self.memory.keep_command(self._now(), key, event)
                await self._see_to(key, appended.owner)
            elif await self._broker.is_shown(key):
                await self._broker.forward(key, event)
            else:
                unknown.append(key)
        if unknown:
            statuses = [
                effects.PublishCommandStatus(key.exam, event.command_id, key.student_id, "refused", "not in this exam")
                for key in unknown
            ]
            await self._broker.publish(unknown[0].exam, status_frames(statuses))

    async def exam_event(self, key: ExamKey, event: ExamEvent) -> None:
        """Decide an event of the exam, save it and see to what follows. When this returns it is kept."""
        while self._is_held(key, saves=True):
            await self._pause()
        for _ in range(_EXAM_ATTEMPTS):
            before = await self._broker.load_exam(key)
            exam = before or new_exam(key, HERE, self._now())
            decision = decide_exam(exam, event, self._now())
            if decision.exam is exam and before is not None:
                self.exams[key] = exam
                break
            if await self._broker.save_exam(before, decision.exam, decision.entries):
                self.memory.keep_entries(self._now(), key, decision.entries)
                self.learn(decision.exam)
                break
        else:
            raise RedisError(f"exam {key.quiz_id} was changed by others {_EXAM_ATTEMPTS} times in a row")
        for effect in decision.effects:
            match effect:
                case effects.PublishIncidents():
                    await self._broker.publish(key, [incidents_frame(effect, self._now())])
                case effects.CommandEveryone():
                    await self._command_everyone(effect)
                case effects.ScheduleSweep():
                    # Sweeping itself needs no start: every worker counts for the exams that it has participants of.
                    await self._broker.keep(key, None if effect.action == "start" else RETENTION_SECONDS)
                case _:
                    assert_never(effect)

    async def _command_everyone(self, effect: effects.CommandEveryone) -> None:
        student_ids = await self._broker.student_ids(effect.exam)
        for start in range(0, len(student_ids), _EVERYONE_CHUNK):
            chunk = student_ids[start : start + _EVERYONE_CHUNK]
            await self.command([ParticipantKey(*effect.exam, student_id) for student_id in chunk], effect.event)

    def learn(self, exam: Exam) -> None:
        """Another worker, or this one, saved an exam: decide by it from now on."""
        known = self.exams.get(exam.key)
        if known is None or exam.version > known.version:
            self.exams[exam.key] = exam

    # --- ownership ---

    async def _claim(self, key: ParticipantKey, *, home: bool = False) -> None:
        """Become the owner, and decide what has been waiting; while Redis can't be reached it waits on.

        `home`: during a move, ask for the participant whose home is not known to be here.
        """
        while True:
            if self._is_held(key.exam):
                await self._pause()
                continue
            try:
                claimed = await self._broker.claim(key, self.worker)
                was_here = claimed.record is not None and claimed.record.home == HERE
                if not was_here:
                    claimed = await self._at_home(key, claimed, ask=home)
                exam = claimed.exam or await self._open_exam(key.exam)
                orphaned = (
                    claimed.previous is not None
                    and claimed.previous != self.worker
                    and await self.is_dead(claimed.previous)
                )
                break
            except RedisError:
                await self._pause()
        self.learn(exam)
        self._own(key, claimed, orphaned)
        if not was_here and claimed.record is not None and claimed.record.home == HERE:
            # it came from the other side: kept and shown here, whatever its page says
            self._save_again(self._owned[key])

    async def _at_home(self, key: ParticipantKey, claimed: Claimed, *, ask: bool) -> Claimed:
        """What was claimed, with the record whose home is here now; else with one whose events go to the other side."""
        if await self._broker.move() is None:
            return claimed
        came = await self._broker.claim_home(key) if ask else None
        if came is not None:
            return replace(claimed, record=came)
        return replace(claimed, record=claimed.record or new_participant(key, OTHER_SIDE))

    def hand_over(self, key: ParticipantKey) -> None:
        """Let the other side be the participant's home. Nothing is acked from now on.

        The bridge writes it down there when it finds this saved, and only then sends the page over.
        """
        owned = self._owned.get(key)
        if owned is None or owned.record.home != HERE:
            return
        policy = self.exams[owned.exam].policy
        owned.record = handed_over(owned.record, OTHER_SIDE, self._now(), policy)
        owned.deadline_kept = False
        if not self._dirty:
            self._wake()
        self._dirty[key] = owned

    def _own(self, key: ParticipantKey, claimed: Claimed, orphaned: bool) -> None:
        owned = Owned(key, claimed.record or new_participant(key, HERE), claimed.epoch)
        self._owned[key] = owned
        self._of_exam[key.exam].add(key)
        if owned.record.check_at is not None:
            heapq.heappush(self._timers, (owned.record.check_at, key))
        if orphaned and owned.record.home == HERE:
            self._decide(owned, OwnerLost(received_at=self._now()))
        self._decide_waiting(owned, claimed.inbox)
        for event in self._claiming.pop(key, ()):
            self._decide(owned, event)

    async def _open_exam(self, key: ExamKey) -> Exam:
        """The exam of a first report that nobody opened before."""
        fresh = new_exam(key, HERE, self._now())
        if await self._broker.save_exam(None, fresh, ()):
            return fresh
        return await self._broker.load_exam(key) or fresh

    async def take_over(self, key: ParticipantKey) -> None:
        """Become the owner of an orphan: its deadline has passed, or its inbox waits, and its owner is dead."""
        owned = self._owned.get(key)
        if owned is not None and owned.record.home != HERE:
            self._drop(key, owned)  # a stand-in, of which Redis has something newer
        if key in self._owned or key in self._claiming:
            return
        self._claiming[key] = []
        await self._claim(key)

    async def _see_to(self, key: ParticipantKey, owner: str | None) -> None:
        """After an append: nudge ourselves, or take over from a worker that is dead."""
        if owner == self.worker and key in self._owned:
            self.nudge(key)
        elif owner == self.worker or owner is None or await self.is_dead(owner):
            await self.take_over(key)

    async def is_dead(self, worker: str) -> bool:
        """Whether its lease has run out. In a cluster the node that has the lease may be away: then that is not known."""
        try:
            return not await self._broker.is_alive(worker)
        except RedisError:
            if self._broker.node_of is None:
                raise
            return False

    async def _pass_on(self, key: ParticipantKey, events: Sequence[ParticipantEvent]) -> None:
        """Give events to whoever owns the participant, in their order; while Redis can't be reached they wait.

        One that was appended without our hearing so is appended twice, which is as harmless as a page that sends again.
        """
        waiting = self._passing.get(key)
        if waiting is not None:
            waiting += events[: _MAX_WAITING - len(waiting)]
            return
        waiting = self._passing[key] = list(events)
        while waiting:
            passing = waiting[:]
            try:
                appended = await self._broker.append(key, passing)
            except RedisError:
                await self._pause()
                continue
            del waiting[: len(passing)]
            try:
                await self._see_to(key, appended.owner)
            except RedisError:
                continue  # the look for waiting inboxes sees to it
        del self._passing[key]

    async def _pause(self) -> None:
        """Until Redis may answer again."""
        paused = asyncio.get_running_loop().create_future()
        self._pausing.append(paused)
        await paused

    def try_again(self) -> None:
        """Redis may answer: whatever has paused goes on."""
        pausing, self._pausing = self._pausing, []
        for paused in pausing:
            if not paused.done():
                paused.set_result(None)

    async def _read_inbox(self, key: ParticipantKey, owned: Owned) -> None:
        try:
            waiting = await self._broker.inbox(key)
        except RedisError:
            return  # the look for waiting inboxes nudges again
        finally:
            owned.reading_inbox = False
        if self._owned.get(key) is owned:
            self._decide_waiting(owned, waiting)
            if owned.nudged:
                owned.nudged = False
                self.nudge(key)

    def _decide_waiting(self, owned: Owned, waiting: Iterable[Waiting]) -> None:
        for number, event in waiting:
            if number > owned.inbox_decided:
                owned.inbox_decided = number
                self._decide(owned, event, from_inbox=True)

    def _drop(self, key: ParticipantKey, owned: Owned) -> None:
        """Another worker is the owner."""
        if self._owned.get(key) is owned:
            del self._owned[key]
            self._of_exam[key.exam].discard(key)
        if self._dirty.get(key) is owned:  # it may be a newer claim's by now, whose acks wait for its save
            del self._dirty[key]

    # --- deciding ---

    def _decide(self, owned: Owned, event: ParticipantEvent, *, from_inbox: bool = False) -> None:
        before, pending = owned.record, owned.pending
        decision = decide(before, event, self.exams[owned.exam], self._now())
        after = owned.record = decision.participant
        if after.check_at != before.check_at:
            owned.deadline_kept = False
        if decision.entries:
            pending.entries += decision.entries
        for effect in decision.effects:
            match effect:
                case PublishView():
                    pending.publish = True
                case Ack() | Send() | Close() | Forward():
                    pending.after_save += (effect,)
                case SetDeadline():
                    heapq.heappush(self._timers, (effect.at, owned.key))  # and in Redis, by the save
                case PublishMessage():
                    pending.frames += (grouped(effect.group, encode(effect.frame)),)
                case PublishCommandStatus():
                    pending.statuses += (effect,)
                case _:
                    assert_never(effect)
        if after is before and not (from_inbox or owned.saving or owned.key in self._dirty):
            performing, pending.after_save = pending.after_save, ()
            self._perform(owned.exam, performing)
            return
        if not from_inbox:
            pending.events += (event,)
        if not self._dirty:
            self._wake()
        self._dirty[owned.key] = owned

    def _perform(self, exam: ExamKey, performing: Iterable[AfterSave]) -> None:
        for effect in performing:
            match effect:
                case Ack() | Send():
                    self._sockets.send(exam, effect.connection, encode(effect.frame))
                case Close():
                    self._sockets.close(exam, effect.connection, effect.code, effect.reason)
                case Forward():
                    self._spawn(self._forward(effect))
                case _:
                    assert_never(effect)

    async def _forward(self, effect: effects.Forward) -> None:
        try:
            await self._broker.forward(effect.key, effect.event)
            move = await self._broker.move()
        except RedisError:
            return  # not acked: it comes again
        event = effect.event
        if move is not None and isinstance(event, StatusReported) and speaks_protocol(event):
            self._sockets.send(effect.key.exam, event.connection, moved_frame(move))

    # --- deadlines ---

    def check_due(self) -> float | None:
        """Decide the deadlines that have passed; return when the next one is due."""
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            at, key = heapq.heappop(self._timers)
            owned = self._owned.get(key)
            if owned is not None and owned.record.check_at == at and owned.record.home == HERE:
                self._check(owned, at)  # any other is a stray: the record's deadline has moved
        return self._timers[0][0] if self._timers else None

    def _check(self, owned: Owned, at: float) -> None:
        self._decide(owned, DeadlineReached(received_at=max(at, self._now()), at=at))

    # --- saving ---

    async def flush(self) -> None:
        """Save what has changed, then perform what follows. One flush at a time; a call during one does nothing.

        In a Redis Cluster that holds for each exam: what goes to one node waits for no other.
        """
        node_of = self._broker.node_of
        if not self._dirty or (self._flushing and node_of is None):
            return
        dirty, self._dirty = self._dirty, {}
        if node_of is None and not self._holds:
            await self._flush_part(dirty)
            return
        parts: defaultdict[Hashable, dict[ParticipantKey, Owned]] = defaultdict(dict)
        for key, owned in dirty.items():
            if owned.exam in self._saving or self._is_held(owned.exam, saves=True):
                self._waiting[key] = owned
                owned.saving = True  # to others it is as if it were on its way
            else:
                parts[None if node_of is None else node_of(owned.exam)][key] = owned
        if len(parts) == 1:
            await self._flush_part(*parts.values())
        elif parts:
            await asyncio.gather(*map(self._flush_part, parts.values()))

    async def _flush_part(self, dirty: dict[ParticipantKey, Owned]) -> None:
        apart = set() if self._broker.node_of is None else {owned.exam for owned in dirty.values()}
        self._flushing += 1
        self._saving |= apart
        try:
            await self._flush(dirty)
        finally:
            self._flushing -= 1
            self._saving -= apart
            if self._waiting:
                self._wait_no_more()
            if self._dirty:
                self._wake()

    def _wait_no_more(self) -> None:
        """What waited for a flush or a hold that is over is saved with the next flush; if it must wait still, that says so."""
        waiting, self._waiting = self._waiting, {}
        for key, owned in waiting.items():
            if self._owned.get(key) is owned:
                owned.saving = False
                self._dirty[key] = owned

    async def _flush(self, dirty: dict[ParticipantKey, Owned]) -> None:
        batches: dict[ExamKey, list[Batch]] = {}
        for owned in dirty.values():
            batches.setdefault(owned.exam, []).append(taken(owned))
        results: dict[ExamKey, list[bool]] = {}
        with contextlib.suppress(RedisError):
            results = await self._broker.save(
                self.worker, {exam: [batch.save for batch in found] for exam, found in batches.items()}
            )
        if self._not_saved or len(results) < len(batches):
            self._not_saved = (self._not_saved - results.keys()) | (batches.keys() - results.keys())
        for exam, found in batches.items():
            if exam not in results:
                # Saved or not, saving again is harmless: same owner and epoch, and entries have the same keys.
                for batch in found:
                    owned = batch.owned
                    if self._owned.get(owned.key) is owned:
                        self._dirty[owned.key] = owned
                    batch.put_back()
                continue
            for batch, saved in zip(found, results[exam], strict=True):
                owned = batch.owned
                if saved:
                    batch.kept()
                    pending = batch.pending
                    if pending.entries:
                        self.memory.keep_entries(self._now(), exam, pending.entries)
                    self._perform(exam, pending.after_save)
                else:
                    batch.put_back()
                    self._refused(owned)

    def _refused(self, owned: Owned) -> None:
        """Another worker is the owner: the events since the last save go there, or are decided here under a new claim."""
        self._drop(owned.key, owned)
        lost, owned.pending = owned.pending.events, Pending()
        if owned.page_came:
            for event in lost:
                self.handle(owned.key, event, claim=True)
        elif lost:
            self._spawn(self._pass_on(owned.key, lost))

    def release(self, exam: ExamKey) -> None:
        """Forget the participants of an exam that is closed, as far as they are saved; a late event brings one back."""
        for key in list(self._of_exam.get(exam, ())):
            owned = self._owned[key]
            if key not in self._dirty and not owned.saving:
                self._drop(key, owned)

    def hold(self, hold: Hold) -> None:
        """Redis is back, perhaps without its memory: owners write back first. Until `restore` has done so, this holds."""
        self._holds.append(hold)

    def _is_held(self, exam: ExamKey, *, saves: bool = False) -> bool:
        """Whether claims of this exam's participants have to wait, or what is decided about it and them."""
        return any((hold.saves or not saves) and hold.is_about(exam) for hold in self._holds)

    async def restore(self, hold: Hold, settled: Callable[[], Coroutine[None, None, None]]) -> None:
        """Redis may have come back without the last seconds, or empty: write back what it may have lost.

        That is what this worker owns, the exams of that, and the entries and commands of the last seconds: Redis may have
        confirmed them, and died before anybody else had them. `settled` returns when others had the time to do the same.
        """
        try:
            self.rewrite()
            if hold.saves:
                await self._write_back(hold)
            for exam in filter(hold.is_about, self.exams_owned):
                await self._restore_exam(self.exams[exam])
            entries = self.memory.entries(self._now())
            await self._broker.rejournal({exam: found for exam, found in entries.items() if hold.is_about(exam)})
            await settled()
        finally:
            self._holds.remove(hold)  # with another loss comes another hold
            self.try_again()
            self._wait_no_more()
            if self._dirty:
                self._wake()
        for key, command in self.memory.commands(self._now()):
            if not hold.is_about(key.exam):
                continue
            appended = await self._broker.append(key, [command], must_exist=True)
            if appended.known:
                await self._see_to(key, appended.owner)

    async def _write_back(self, hold: Hold) -> None:
        """Everything that is owned as it was last saved, so that its epoch is known before anybody decides by an older one.

        If a claim is among what Redis has lost, its former owner may not have heard of it and decide on; nothing of that may
        be saved. So what has been decided since waits, here and elsewhere, until all have written back; one who is refused
        then is no owner.
        """
        found: defaultdict[ExamKey, list[Owned]] = defaultdict(list)
        for owned in self._owned.values():
            if hold.is_about(owned.exam):
                found[owned.exam].append(owned)
        saves = {exam: [Save(owned.saved, owned.epoch) for owned in some] for exam, some in found.items()}
        results = await self._broker.save(self.worker, saves)
        for exam, saved in results.items():
            for owned, is_owner in zip(found[exam], saved, strict=True):
                if not is_owner and self._owned.get(owned.key) is owned:
                    self._refused(owned)
        if len(results) < len(saves):
            raise RedisUnavailable("away again before everything was written back")

    async def _restore_exam(self, known: Exam) -> None:
        stored = await self._broker.load_exam(known.key)
        if stored is None or stored.version < known.version:
            await self._broker.save_exam(stored, known, ())
        else:
            self.learn(stored)

    def rewrite(self) -> None:
        """Save everything that is owned again."""
        for owned in self._owned.values():
            self._save_again(owned)

    def _save_again(self, owned: Owned) -> None:
        """Save and publish it, changed or not."""
        owned.pending.publish = True
        owned.deadline_kept, owned.inbox_emptied = False, 0
        if not self._dirty:
            self._wake()
        self._dirty[owned.key] = owned

    # --- what others ask ---

    def owned_of(self, exam: ExamKey) -> list[Participant]:
        """The records of an exam that this worker owns, as they are in memory."""
        owned = (self._owned[key].record for key in self._of_exam.get(exam, ()))
        return [record for record in owned if record.home == HERE]

    @property
    def exams_owned(self) -> list[ExamKey]:
        """The exams that this worker owns participants of."""
        return [exam for exam, keys in self._of_exam.items() if keys]

    @property
    def participants_owned(self) -> int:
        """How many this worker owns."""
        return len(self._owned)

    @property
    def unsaved(self) -> int:
        """How many of them have changed since their last save."""
        return len(self._dirty) + len(self._waiting)

    @property
    def could_not_save(self) -> bool:
        """Whether flushes have left something unsaved because Redis, or one of its nodes, did not answer or is not to be asked."""
        return bool(self._not_saved or self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether everything decided is saved."""
        return not (self._dirty or self._waiting or self._flushing or self._claiming)


def moved_frame(move: Move) -> bytes:
    """Sends a page to the other side."""
    return encode(messages.Reconnect(messages.ReconnectData(0, "moved", move.url(OTHER_SIDE))))
