"""AWS Signature Version 4, both ways: sign our own requests, check those that come in.

Follows "Create a signed AWS API request" (IAM user guide): for every service but S3 the path is encoded once more than
it is on the wire. Presigned URLs and chunked payloads are not needed here and are refused.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from calendar import timegm
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import parse_qsl, quote

ALGORITHM = "AWS4-HMAC-SHA256"
#: A request may be this much older or newer than our clock.
CLOCK_SKEW_SECONDS = 300


class SignatureRefused(Exception):
    """The request is not signed as it should be; `code` is the error type AWS answers with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@lru_cache(maxsize=16)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(
    method: str,
    target: str,
    headers: Mapping[str, str],
    signed_headers: list[str],
    body: bytes,
    *,
    secret: str,
    timestamp: str,
    region: str,
    service: str,
) -> str:
    """The signature in hex. `target` is the path and query as on the wire, `headers` has lower-case names."""
    path, _, query = target.partition("?")
    pairs = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join(
        [
            method,
            quote(path or "/", safe="/~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed_headers),
            "",
            ";".join(signed_headers),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{timestamp[:8]}/{region}/{service}/aws4_request"
    to_sign = f"{ALGORITHM}\n{timestamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(_signing_key(secret, timestamp[:8], region, service), to_sign.encode(), "sha256").hex()


def sign(
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
    *,
    access_key_id: str,
    secret: str,
    session_token: str = "",
    region: str,
    service: str,
) -> dict[str, str]:
    """The headers to send: those given (lower-case names, `host` among them) with date, token and authorization."""
    timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {**headers, "x-amz-date": timestamp}
    if session_token:
        headers["x-amz-security-token"] = session_token
    names = sorted(headers)
    value = signature(
        method, target, headers, names, body, secret=secret, timestamp=timestamp, region=region, service=service
    )
    scope = f"{access_key_id}/{timestamp[:8]}/{region}/{service}/aws4_request"
    headers["authorization"] = f"{ALGORITHM} Credential={scope}, SignedHeaders={';'.join(names)}, Signature={value}"
    return headers


def verify(
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access_key_id: str,
    secret: str,
    session_token: str = "",
    region: str,
    service: str,
    now: float,
) -> None:
    """Check a request; `headers` has lower-case names.

    Raises SignatureRefused if it carries no signature, another identity's, one for another Region or service, a date
    too far from `now`, or a wrong one.
    """
    authorization = headers.get("authorization", "")
    if not authorization:
        raise SignatureRefused("MissingAuthenticationTokenException", "Missing Authentication Token")
    scheme, _, rest = authorization.partition(" ")
    parts = dict(item.strip().partition("=")[::2] for item in rest.split(","))
    if scheme != ALGORITHM or not {"Credential", "SignedHeaders", "Signature"} <= parts.keys():
        raise SignatureRefused(
            "IncompleteSignatureException", f"{ALGORITHM} needs Credential, SignedHeaders, Signature"
        )
    scope = parts["Credential"].split("/")
    timestamp = headers.get("x-amz-date", "")
    if len(scope) != 5 or not timestamp:
        raise SignatureRefused("IncompleteSignatureException", "the credential scope or the date is incomplete")
    if scope[0] != access_key_id or headers.get("x-amz-security-token", "") != session_token:
        raise SignatureRefused("UnrecognizedClientException", "The security token included in the request is invalid.")
    if scope[1:] != [timestamp[:8], region, service, "aws4_request"]:
        raise SignatureRefused("InvalidSignatureException", f"Credential should be scoped to {region}/{service}.")
    try:
        signed_at = timegm(time.strptime(timestamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise SignatureRefused("IncompleteSignatureException", "the date is not in ISO 8601 basic form") from None
    if abs(now - signed_at) > CLOCK_SKEW_SECONDS:
        raise SignatureRefused("InvalidSignatureException", "Signature expired or not yet current.")
    names = parts["SignedHeaders"].split(";")
    if "host" not in names or any(name not in headers for name in names):
        raise SignatureRefused("InvalidSignatureException", "a signed header is missing, or host is not signed")
    expected = signature(
        method, target, headers, names, body, secret=secret, timestamp=timestamp, region=region, service=service
    )
    if not hmac.compare_digest(expected, parts["Signature"]):
        raise SignatureRefused(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )
