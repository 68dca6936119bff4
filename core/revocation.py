"""Tokens that count no more, although they have not expired. Where they are kept, and who is hung up on, is the adapters' part."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from core.identity import Principal, Role


class Revocation(Struct, frozen=True):
    """Of one bearer, or of all of this role, in one exam or (no `quiz_id`) in all of a school's."""

    school: str
    role: Role
    quiz_id: str = ""
    subject: str = ""


class ListedRevocation(Struct, frozen=True):
    """A revocation and the moment until which it holds, for an operator's eyes."""

    revocation: Revocation
    until: float


def is_refused(principal: Principal, revoked: Mapping[Revocation, float], now: float) -> bool:
    """Whether this bearer is out, by revocations with the moment until which each holds. A proctor of several exams is out when all
    of these are.
    """
    return bool(revoked) and all(covers(revoked, principal, quiz_id, now) for quiz_id in principal.quiz_ids)


def covers(revoked: Mapping[Revocation, float], principal: Principal, quiz_id: str, now: float) -> bool:
    """Whether this bearer is out of this exam."""
    return any(
        revoked.get(Revocation(principal.school, principal.role, quiz, subject), 0.0) > now
        for quiz in (quiz_id, "")
        for subject in (principal.subject, "")
    )
