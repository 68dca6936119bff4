"""Journal entries: what must last. A shell saves them in the same atomic step as the record that caused them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

EntryKind: TypeAlias = Literal["attempt", "label", "session", "command", "receipt", "message", "exam", "incident"]


class Entry(Struct, frozen=True, omit_defaults=True):
    """One line. Its key is (school, quiz_id, student_id, version, n): the same entry written twice is one entry.

    `cause` names what brought it about (`reported`, `silence`, `dropped`, ...); for a label `before` and `after` are labels, for
    a command or receipt `reference` is its id and `after` its outcome. `actor` is a proctor or `student`; lines without one are
    the server's own inferences. Entries about the whole exam have an empty `student_id`.
    """

    school: str
    quiz_id: str
    student_id: str
    version: int
    n: int
    at: float
    kind: EntryKind
    cause: str
    before: str = ""
    after: str = ""
    reference: str = ""
    actor: str = ""
    text: str = ""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """The entry as a stream or a table keeps it."""
    return _encoder.encode(entry)


def decode(stored: bytes | str) -> Entry:
    """The entry from what was kept. Raises `msgspec.ValidationError` if that is no entry."""
    return _decoder.decode(stored)
