"""A participant that a worker owns: the record, what has been decided since it was last saved, and that as one part of a flush."""

from __future__ import annotations

import math

from adapters.ec2_cluster.broker import Save
from adapters.ec2_cluster.frames import status_frames
from core import effects
from core.events import ParticipantEvent
from core.journal import Entry
from core.messages import encode_value
from core.participant import Participant, ParticipantKey
from core.snapshot import view


class Owned:
    """A participant that this worker owns, and what has been decided since the last save."""

    __slots__ = (
        "after_save",
        "deadline_kept",
        "entries",
        "epoch",
        "events",
        "exam",
        "frames",
        "inbox_decided",
        "inbox_emptied",
        "key",
        "nudged",
        "page_came",
        "publish",
        "reading_inbox",
        "record",
        "saved",
        "saving",
        "statuses",
    )

    def __init__(self, key: ParticipantKey, record: Participant, epoch: int) -> None:
        self.key = key
        self.exam = key.exam
        self.record = record
        self.saved = record  # as Redis has it, or had it: what is acknowledged is in it
        self.epoch = epoch
        self.deadline_kept = False  # Redis is known to have the record's deadline
        self.events: list[ParticipantEvent] = []
        self.entries: list[Entry] = []
        self.after_save: list[effects.Send | effects.Close | effects.Ack | effects.Forward] = []
        self.frames: list[bytes] = []
        self.statuses: list[effects.PublishCommandStatus] = []
        self.publish = False
        self.inbox_decided = 0
        self.inbox_emptied = 0  # up to this number Redis has taken events off
        self.reading_inbox = False
        self.nudged = False  # while reading: what the nudge was about may have come too late for that
        self.saving = False
        self.page_came = False  # a page has connected here since the last save; if that is refused, own it again


class Batch:
    """One participant in a flush: what goes into the save, taken off the owned copy so that the next events start anew."""

    __slots__ = ("after_save", "entries", "events", "frames", "owned", "publish", "save", "statuses")

    def __init__(self, owned: Owned) -> None:
        self.owned = owned
        self.events, owned.events = owned.events, []
        self.after_save, owned.after_save = owned.after_save, []
        self.entries, owned.entries = owned.entries, []
        self.frames, owned.frames = owned.frames, []
        self.statuses, owned.statuses = owned.statuses, []
        self.publish, owned.publish = owned.publish, False
        owned.saving = True
        record = owned.record
        self.save = Save(
            record,
            owned.epoch,
            encode_value(view(record)) if self.publish else None,
            [*self.frames, *status_frames(self.statuses)] if self.statuses else self.frames,
            self.entries,
            owned.inbox_decided if owned.inbox_decided > owned.inbox_emptied else None,
            owned.deadline_kept,
            self.events[0].received_at if self.events else math.inf,
        )

    def kept(self) -> None:
        """Known to be saved."""
        owned = self.owned
        owned.saving = owned.page_came = False
        owned.saved = self.save.record
        owned.inbox_emptied = self.save.inbox_decided or owned.inbox_emptied
        if owned.record.check_at == self.save.record.check_at:
            owned.deadline_kept = True

    def put_back(self) -> None:
        """Not known to be saved: everything goes into the next one."""
        owned = self.owned
        owned.saving = owned.deadline_kept = False
        owned.events = [*self.events, *owned.events]
        owned.entries = [*self.entries, *owned.entries]
        owned.after_save = [*self.after_save, *owned.after_save]
        owned.frames = [*self.frames, *owned.frames]
        owned.statuses = [*self.statuses, *owned.statuses]
        owned.publish = owned.publish or self.publish
