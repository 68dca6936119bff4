"""A participant that a worker owns: the record, what has been decided since it was last saved, and that as one part of a flush.

Several times for each report something here is made or copied, so most of it is shared until it is needed: empty tuples.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from msgspec import Struct

from adapters.ec2_cluster.broker import Save
from adapters.ec2_cluster.frames import status_frames
from core import effects
from core.events import ParticipantEvent
from core.journal import Entry
from core.messages import encode_value
from core.participant import Participant, ParticipantKey
from core.snapshot import view

AfterSave: TypeAlias = effects.Send | effects.Close | effects.Ack | effects.Forward
"""What is performed once the record is saved."""


class Pending(Struct, gc=False):
    """What has been decided about a participant since its last save: it goes into the next one, or follows it."""

    events: tuple[ParticipantEvent, ...] = ()
    entries: tuple[Entry, ...] = ()
    after_save: tuple[AfterSave, ...] = ()
    frames: tuple[bytes, ...] = ()
    statuses: tuple[effects.PublishCommandStatus, ...] = ()
    publish: bool = False

    def add(self, later: Pending) -> None:
        """Take in what was decided after this."""
        self.events += later.events
        self.entries += later.entries
        self.after_save += later.after_save
        self.frames += later.frames
        self.statuses += later.statuses
        self.publish = self.publish or later.publish


class Owned:
    """A participant that this worker owns."""

    __slots__ = (
        "deadline_kept",
        "epoch",
        "exam",
        "inbox_decided",
        "inbox_emptied",
        "key",
        "nudged",
        "page_came",
        "pending",
        "reading_inbox",
        "record",
        "saved",
        "saving",
    )

    def __init__(self, key: ParticipantKey, record: Participant, epoch: int) -> None:
        self.key = key
        self.exam = key.exam
        self.record = record
        self.saved = record  # as Redis has it, or had it: what is acknowledged is in it
        self.epoch = epoch
        self.deadline_kept = False  # Redis is known to have the record's deadline
        self.pending = Pending()
        self.inbox_decided = 0
        self.inbox_emptied = 0  # up to this number Redis has taken events off
        self.reading_inbox = False
        self.nudged = False  # while reading: what the nudge was about may have come too late for that
        self.saving = False
        self.page_came = False  # a page has connected here since the last save; if that is refused, own it again


class Batch(Struct, frozen=True, gc=False):
    """One participant in a flush: what goes into the save, taken off the owned copy so that the next events start anew."""

    owned: Owned
    pending: Pending
    save: Save

    def kept(self) -> None:
        """Known to be saved."""
        owned, save = self.owned, self.save
        owned.saving = owned.page_came = False
        owned.saved = save.record
        if save.inbox_decided is not None:
            owned.inbox_emptied = save.inbox_decided
        if owned.record.check_at == save.record.check_at:
            owned.deadline_kept = True

    def put_back(self) -> None:
        """Not known to be saved: everything goes into the next one."""
        owned = self.owned
        owned.saving = owned.deadline_kept = False
        self.pending.add(owned.pending)
        owned.pending = self.pending


def taken(owned: Owned) -> Batch:
    """What an owned participant has for a flush."""
    record, pending = owned.record, owned.pending
    owned.pending = Pending()
    owned.saving = True
    save = Save(
        record,
        owned.epoch,
        encode_value(view(record)) if pending.publish else None,
        (*pending.frames, *status_frames(pending.statuses)) if pending.statuses else pending.frames,
        pending.entries,
        owned.inbox_decided if owned.inbox_decided > owned.inbox_emptied else None,
        owned.deadline_kept,
        pending.events[0].received_at if pending.events else math.inf,
    )
    return Batch(owned, pending, save)
