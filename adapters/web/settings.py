"""The settings of the app, the same on both deployments; each adapter reads them in its own way."""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from adapters.web.records import Records

MIN_KEY_CHARACTERS = 16


class WebSettingsError(Exception):
    """A setting is missing or wrong; the message names it and the fix."""


class KeyHolder(Struct, frozen=True):
    """A school, and who acts with its key, as the journal says it."""

    school: str
    actor: str


class Keys(Protocol):
    """Which school a key belongs to."""

    def holder_of(self, presented: str) -> KeyHolder | None:
        """The school of this key, and who acts with it; None if it does not count."""


class SchoolKeys:
    """The keys that are configured. Only digests are kept."""

    __slots__ = ("_schools",)

    def __init__(self, keys: list[tuple[str, str]]) -> None:
        """`keys` are pairs of school and key; a school may have several, to change them without a gap."""
        self._schools = [(_digest(key), school) for school, key in keys]

    def school_of(self, presented: str) -> str | None:
        """The school of this key, in a time that does not tell how much of it is right."""
        digest, found = _digest(presented), None
        for known, school in self._schools:
            if hmac.compare_digest(known, digest):
                found = school
        return found

    def holder_of(self, presented: str) -> KeyHolder | None:
        """See `Keys`."""
        school = self.school_of(presented)
        return None if school is None else KeyHolder(school, "api")


class WebSettings(Struct, frozen=True, kw_only=True):
    """`token_secrets` maps `kid` to HS256 secret; the first one signs. `socket_url` is where clients connect.

    `endpoints` are further hosts that a page may be sent to by a `reconnect`; the one of `socket_url` always is.
    With an `audience`, tokens are signed for it, and only those for it count.
    `records`: what schools keep; without any, they are in this process's memory. A closed exam may be purged `purge_after_seconds`
    later, when what was on its way to the journal is there.
    A key (or an address without one) may send `request_burst` requests at once and `requests_per_second` in the long run.
    """

    school_keys: Keys
    token_secrets: dict[str, str]
    socket_url: str
    endpoints: tuple[str, ...] = ()
    audience: str = ""
    requests_per_second: float = 50.0
    request_burst: float = 200.0
    records: Records | None = None
    purge_after_seconds: float = 60.0

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that a token names as endpoints."""
        return tuple(dict.fromkeys((urlsplit(self.socket_url).netloc, *self.endpoints)))


def read_school_keys(text: str, *, needed: bool = True) -> SchoolKeys:
    """Keys from `school:key,school:key`; none may be `needed`, if there are keys on record. Raises `WebSettingsError`."""
    if not text.strip() and not needed:
        return SchoolKeys([])
    if not text.strip():
        raise WebSettingsError(
            "no school keys: set PROCTORWIRE_SCHOOL_KEYS to school:key,school:key (make a key: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))')"
        )
    keys: list[tuple[str, str]] = []
    for number, part in enumerate(text.split(","), 1):
        school, colon, key = part.strip().partition(":")
        if not (school and colon):
            raise WebSettingsError(f"school key {number} is not of the form school:key")
        if len(key) < MIN_KEY_CHARACTERS:
            raise WebSettingsError(f"the key of school {school} is shorter than {MIN_KEY_CHARACTERS} characters")
        keys.append((school, key))
    if len({key for _, key in keys}) < len(keys):
        raise WebSettingsError("two school keys are the same; each must lead to one school")
    return SchoolKeys(keys)


def read_socket_url(text: str) -> str:
    """The URL if it is one of a WebSocket. Raises `WebSettingsError`."""
    parts = urlsplit(text)
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise WebSettingsError(f"socket_url is {text!r}; it must be a ws:// or wss:// URL")
    return text


def read_endpoints(text: str) -> tuple[str, ...]:
    """Hosts from a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
