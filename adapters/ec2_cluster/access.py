"""Who may come in, and who may not any more: keys that tokens are checked with, and revocations.

Keys are secrets from the settings and public keys from a JWKS (a file or a URL), which is read again now and then, so that keys can
be changed without a restart. Revocations are in Redis; every worker has them in memory, because a handshake must not wait.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import astuple

from adapters.ec2_cluster.config import without_password
from core.errors import TokenRejected
from core.identity import Principal, PublicKey, Role, public_keys
from core.revocation import Revocation, is_refused

log = logging.getLogger(__name__)

JWKS_PERIOD_SECONDS = 60.0
_JWKS_AGAIN_SECONDS = 2.0
_JWKS_BYTES = 256 * 1024
_FETCH_SECONDS = 5.0


class Revocations:
    """All that are in force, with the moment until which each is."""

    def __init__(self) -> None:
        self.until: dict[Revocation, float] = {}

    def replace(self, stored: Mapping[bytes, bytes]) -> None:
        """Take over what Redis has."""
        self.until = dict(read_revocations(stored))

    def refuses(self, principal: Principal, now: float) -> bool:
        """Whether this bearer's tokens count no more."""
        return is_refused(principal, self.until, now)

    def stored(self) -> Iterable[tuple[bytes, float]]:
        """As Redis keeps them."""
        return [(encode_revocation(revocation), until) for revocation, until in self.until.items()]


_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(tuple[str, Role, str, str])


def encode_revocation(revocation: Revocation) -> bytes:
    """As it is a field of Redis' hash: an array, which is the same bytes from every release."""
    return _encode(astuple(revocation))


def decode_revocation(stored: bytes) -> Revocation:
    """From a field of Redis' hash. Raises msgspec.ValidationError."""
    return Revocation(*_fields.decode(stored))


def read_revocations(stored: Mapping[bytes, bytes]) -> Iterator[tuple[Revocation, float]]:
    """Those of Redis' hash, each with its end. One that can't be read, perhaps of a later release, must not hide the others."""
    for field, until in stored.items():
        try:
            yield decode_revocation(field), float(until)
        except (msgspec.DecodeError, ValueError) as error:
            log.warning("a revocation can't be read and is passed over: %r: %s", field[:200], error)


class TokenKeys:
    """The keys that tokens are checked with, by `kid`."""

    def __init__(self, secrets: Mapping[str, str], jwks: str) -> None:
        self.by_kid: dict[str, str | PublicKey] = dict(secrets)
        self.are_complete = not jwks
        """Whether the JWKS was read at least once: before that, nobody can say that a token is wrong."""
        self._secrets = secrets
        self._jwks = jwks

    async def refresh(self) -> None:
        """Read the JWKS again. What can't be read leaves the keys as they were."""
        if not self._jwks:
            return
        try:
            text = await asyncio.to_thread(read_jwks, self._jwks)
            self.by_kid = {**public_keys(text), **self._secrets}
            self.are_complete = True
        except (OSError, TokenRejected) as error:
            place = without_password(self._jwks)
            log.warning("the JWKS %s can't be read, its keys stay as they were: %s", place, error)

    async def until_complete(self) -> None:
        """Read the JWKS until that succeeds once."""
        while not self.are_complete:
            await asyncio.sleep(_JWKS_AGAIN_SECONDS)
            await self.refresh()


def read_jwks(place: str) -> bytes:
    """The text of a JWKS: a file, or a URL that begins with https:// (http:// only for this machine). Raises OSError."""
    if "://" not in place:
        return Path(place).read_bytes()
    if not place.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise OSError("give a file or an https:// URL")
    with urllib.request.urlopen(place, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - the scheme was looked at
        text: bytes = answer.read(_JWKS_BYTES + 1)
    if len(text) > _JWKS_BYTES:
        raise OSError(f"it is larger than {_JWKS_BYTES} bytes")
    return text
