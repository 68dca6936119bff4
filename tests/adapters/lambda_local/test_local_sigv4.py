"""Signatures, against those botocore makes."""

import time

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from adapters.lambda_apigw.local import sigv4
from adapters.lambda_apigw.local.sigv4 import SignatureRefused
from adapters.lambda_apigw.local.throttle import TokenBucket

IDENTITY = {"access_key_id": "AKID", "secret": "secret", "region": "ap-southeast-1", "service": "execute-api"}


def botocore_headers(method, target, body=b"", token=None, region="ap-southeast-1", service="execute-api"):
    request = AWSRequest(method=method, url="http://127.0.0.1:1234" + target, data=body)
    SigV4Auth(Credentials("AKID", "secret", token), service, region).add_auth(request)
    return {"host": "127.0.0.1:1234", **{name.lower(): value for name, value in request.headers.items()}}


def verify(method, target, headers, body=b"", now=None, **identity):
    sigv4.verify(method, target, headers, body, **IDENTITY | identity, now=time.time() if now is None else now)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/live/@connections/TXzPWdnOjoECGjA%3D",
        "/live/%40connections/eHrdFcnvvHcCE-w%3D",
        "/a%20b/c~d",
        "/x?b=2&a=1&c=&a=0",
        "/x?q=a%2Fb%20c",
    ],
)
def test_botocores_signatures_are_accepted(target):
    """Source: "Create a signed AWS API request"."""
    for method, body in (("POST", b"\x00payload"), ("GET", b""), ("DELETE", b"")):
        verify(method, target, botocore_headers(method, target, body), body)


def test_ours_are_what_botocore_makes(monkeypatch):
    """Both directions use one canonical form."""
    theirs = botocore_headers("POST", "/x", b"body", token="t")
    ours = sigv4.sign("POST", "/x", {"host": "127.0.0.1:1234"}, b"body", session_token="t", **IDENTITY)
    verify("POST", "/x", ours, b"body", session_token="t")
    verify("POST", "/x", theirs, b"body", session_token="t")
    if ours["x-amz-date"] == theirs["x-amz-date"]:
        assert ours["authorization"] == theirs["authorization"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"authorization": None}, "MissingAuthenticationTokenException"),
        ({"authorization": "Bearer x"}, "IncompleteSignatureException"),
        ({"x-amz-date": None}, "IncompleteSignatureException"),
        ({"x-amz-date": "yesterday"}, "InvalidSignatureException"),
        ({"host": "other"}, "InvalidSignatureException"),
        ({"x-amz-security-token": "t"}, "UnrecognizedClientException"),
    ],
)
def test_changed_headers_are_refused(changes, code):
    """Source: "Common errors" of AWS APIs: each kind by its name."""
    headers = botocore_headers("POST", "/x", b"body") | changes
    headers = {name: value for name, value in headers.items() if value is not None}
    with pytest.raises(SignatureRefused) as refused:
        verify("POST", "/x", headers, b"body")
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("method", "target", "body"), [("GET", "/x", b"body"), ("POST", "/y", b"body"), ("POST", "/x", b"other")]
)
def test_a_signature_covers_method_path_and_body(method, target, body):
    headers = botocore_headers("POST", "/x", b"body")
    with pytest.raises(SignatureRefused, match="does not match"):
        verify(method, target, headers, body)


@pytest.mark.parametrize("scope", [{"region": "us-east-1"}, {"service": "sqs"}])
def test_a_signature_for_another_region_or_service_is_refused(scope):
    headers = botocore_headers("POST", "/x", **scope)
    with pytest.raises(SignatureRefused) as refused:
        verify("POST", "/x", headers)
    assert refused.value.code == "InvalidSignatureException"


@pytest.mark.parametrize("seconds", [-600, 600])
def test_an_old_or_future_signature_is_refused(seconds):
    headers = botocore_headers("POST", "/x")
    with pytest.raises(SignatureRefused, match="expired"):
        verify("POST", "/x", headers, now=time.time() + seconds)


def test_the_bucket_holds_its_burst_and_refills_at_its_rate():
    """Source: "Throttle requests to your WebSocket APIs": token bucket."""
    now = 0.0
    bucket = TokenBucket(10, 3, clock=lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.1
    assert [bucket.take(), bucket.take()] == [True, False]
    now = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
