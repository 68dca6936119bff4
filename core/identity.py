"""Who is connecting, and what they may do: a token's claims in, a `Principal` out.

Tokens are JWTs (RFC 7519). PyJWT is imported late, so that a process which never checks a token does not pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from core.errors import TokenRejected
from core.participant import ExamKey, ParticipantKey, new_key

Role: TypeAlias = Literal["student", "proctor", "bridge"]
SUBPROTOCOL = "proctorwire"
_BEARER = "bearer."
_CLOCK_SKEW_SECONDS = 30
MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash."""


ASYMMETRIC = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""Algorithms, with the type and curve of their keys."""
_LEAST_RSA_BITS = 2048


class _Jwks(Struct, frozen=True):
    keys: list[dict[str, Any]]


class PublicKey(Struct, frozen=True):
    """A key that checks signatures and can make none. Its algorithm is fixed, whatever a token says."""

    algorithm: str
    key: Any


class Principal(Struct, frozen=True, omit_defaults=True):
    """The bearer of a token. `subject` is the student's or proctor's id, `expires_at` epoch seconds."""

    role: Role
    school: str
    subject: str
    quiz_ids: tuple[str, ...]
    expires_at: float
    attempt_id: str = ""
    name: str = ""
    group: str = ""
    endpoints: tuple[str, ...] = ()

    @property
    def participant(self) -> ParticipantKey:
        """The one participant that a student's token is for."""
        assert self.role == "student"  # `verify` gives students exactly one exam
        return new_key(ParticipantKey, (self.school, self.quiz_ids[0], self.subject))

    def may_watch(self, exam: ExamKey) -> bool:
        """Whether this is a proctor of the exam (or the bridge of a migration)."""
        return self.role != "student" and exam.school == self.school and exam.quiz_id in self.quiz_ids


def token_of(subprotocols: list[str], query_token: str | None) -> str | None:
    """Find the token of a handshake: `Sec-WebSocket-Protocol: proctorwire, bearer.TOKEN`, else `?token=`."""
    for offered in subprotocols:
        if offered.startswith(_BEARER):
            return offered.removeprefix(_BEARER)
    return query_token or None


def verify(token: str | None, keys: Mapping[str, str | PublicKey], now: float, audience: str = "") -> Principal:
    """The principal of a token signed with one of `keys`: `kid` to HS256 secret or public key; `""` is for tokens without `kid`.

    With an `audience`, the token's `aud` must name it; without, a token that is for an audience is not for us (RFC 7519, 4.1.3).
    Raises `TokenRejected`: 401 if it is missing, malformed, badly signed or expired, 403 if it is ours but not for an exam.
    """
    import jwt

    if not token:
        raise TokenRejected("no token: send it as the subprotocol bearer.TOKEN or as ?token=")
    try:
        header = jwt.get_unverified_header(token)
        signed_with = header.get("alg")
        if isinstance(signed_with, str) and signed_with in ASYMMETRIC and not _has_public_key(keys):
            raise TokenRejected(
                f"the token is signed with {signed_with}; this service checks tokens of a secret (HS256)"
            )
        key = keys[header.get("kid", "")]
        # The algorithm is the key's, never the token's choice. PyJWT would compare times with this machine's clock; `now` is the
        # service's.
        secret, algorithm = (key.key, key.algorithm) if isinstance(key, PublicKey) else (key, "HS256")
        claims = jwt.decode(
            token,
            secret,
            algorithms=[algorithm],
            audience=audience or None,
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except KeyError:
        raise TokenRejected("the token's kid names no key of this server") from None
    except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as exc:
        raise TokenRejected("the token's aud does not name this service") from exc
    except jwt.InvalidTokenError as exc:
        raise TokenRejected("the token can't be verified") from exc
    principal = principal_of(claims)
    if principal.expires_at + _CLOCK_SKEW_SECONDS < now:
        raise TokenRejected("the token has expired; ask for a new one")
    not_before = claims.get("nbf", 0)
    if not isinstance(not_before, int | float) or not_before - _CLOCK_SKEW_SECONDS > now:
        raise TokenRejected("the token is not valid yet (nbf)")
    return principal


def _has_public_key(keys: Mapping[str, str | PublicKey]) -> bool:
    return any(isinstance(key, PublicKey) for key in keys.values())


def public_keys(jwks: bytes) -> dict[str, PublicKey]:
    """The keys of a JWKS (RFC 7517) by `kid`: RS256, ES256 and EdDSA. Others, and those without `kid`, are left out.

    Raises `TokenRejected` if it is no JWKS.
    """
    import jwt

    try:
        listed = msgspec.json.decode(jwks, type=_Jwks).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise TokenRejected("not a JWKS: it needs a list of keys") from exc
    found: dict[str, PublicKey] = {}
    for one in listed:
        kid, kind = one.get("kid"), (one.get("kty"), one.get("crv"))
        algorithm = next((name for name, wanted in ASYMMETRIC.items() if wanted == kind), None)
        if algorithm is None or not isinstance(kid, str) or not kid or one.get("use", "sig") != "sig":
            continue
        public = {name: value for name, value in one.items() if name != "d"}  # we sign nothing with it
        try:
            key = jwt.PyJWK(public, algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # it is no key
        if algorithm != "RS256" or key.key_size >= _LEAST_RSA_BITS:
            found[kid] = PublicKey(algorithm, key)
    return found


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """The principal that verified claims stand for. Raises `TokenRejected` naming the claim that is missing or wrong."""
    quiz = claims.get("quiz_id")
    try:
        principal = msgspec.convert(
            {
                "role": claims.get("role"),
                "school": claims.get("school"),
                "subject": claims.get("sub"),
                "quiz_ids": [quiz] if isinstance(quiz, str) else quiz,
                "expires_at": claims.get("exp"),
                "attempt_id": claims.get("quiz_attempt_id", ""),
                "name": claims.get("name", ""),
                "group": claims.get("group", ""),
                "endpoints": claims.get("endpoints", []),
            },
            Principal,
        )
    except msgspec.ValidationError as exc:
        raise TokenRejected(f"the token's claims are wrong: {exc}") from exc
    if not (principal.school and principal.subject and principal.quiz_ids):
        raise TokenRejected("the token needs the claims school, sub and quiz_id", status=403)
    if principal.role == "student" and (len(principal.quiz_ids) != 1 or not principal.attempt_id):
        raise TokenRejected("a student's token needs one quiz_id and a quiz_attempt_id", status=403)
    return principal


def issue(principal: Principal, secret: str, kid: str = "", audience: str = "") -> str:
    """Sign a token for this principal with HS256, for a service that wants to be named in `aud` if it does."""
    import jwt

    claims: dict[str, Any] = {
        "sub": principal.subject,
        "role": principal.role,
        "school": principal.school,
        "quiz_id": principal.quiz_ids[0] if len(principal.quiz_ids) == 1 else list(principal.quiz_ids),
        "exp": int(principal.expires_at),
        "quiz_attempt_id": principal.attempt_id,
        "name": principal.name,
        "group": principal.group,
        "endpoints": list(principal.endpoints),
        "aud": audience,
    }
    claims = {name: value for name, value in claims.items() if value not in ("", [])}
    return jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid} if kid else None)
