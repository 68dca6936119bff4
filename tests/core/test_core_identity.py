import base64
import json

import jwt
import pytest
from core_builders import EXAM_KEY, KEY, PROCTOR, STUDENT, T0
from msgspec.structs import replace

from core import identity
from core.errors import TokenRejected

SECRET = "s" * identity.MIN_SECRET_BYTES
KEYS = {"": SECRET, "2026": "t" * 40}
CLAIMS = {
    "sub": "ann",
    "role": "student",
    "school": "school",
    "quiz_id": "quiz",
    "exp": T0 + 3_600,
    "quiz_attempt_id": "a1",
}


def signed(claims, secret=SECRET, **headers):
    return jwt.encode(claims, secret, algorithm="HS256", headers=headers or None)


def refused(token, now=T0):
    with pytest.raises(TokenRejected) as caught:
        identity.verify(token, KEYS, now)
    return caught.value


@pytest.mark.parametrize(
    "principal",
    [
        STUDENT,
        PROCTOR,
        replace(PROCTOR, role="bridge"),
        replace(PROCTOR, group="room 1"),
        replace(STUDENT, name="Ann", group="room 1", endpoints=("wss://exam.example",)),
    ],
)
def test_a_token_says_who_bears_it(principal):
    assert identity.verify(identity.issue(principal, SECRET), KEYS, T0) == principal


def test_the_kid_chooses_the_key():
    token = identity.issue(STUDENT, KEYS["2026"], kid="2026")
    assert identity.verify(token, KEYS, T0) == STUDENT
    assert refused(identity.issue(STUDENT, SECRET, kid="2026")).status == 401
    assert "kid names no key" in refused(identity.issue(STUDENT, SECRET, kid="1999")).message


def unsigned() -> str:
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()  # noqa: E731
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(CLAIMS)}."


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "nonsense",
        "a.b.c",
        signed(CLAIMS, "x" * 32),
        signed(CLAIMS)[:-3],
        unsigned(),
        jwt.encode(CLAIMS, "s" * 64, algorithm="HS512"),
        signed(CLAIMS | {"exp": T0 - 31}),
        signed(CLAIMS | {"nbf": T0 + 31}),
        signed({k: v for k, v in CLAIMS.items() if k != "exp"}),
        signed({k: v for k, v in CLAIMS.items() if k != "role"}),
        signed({k: v for k, v in CLAIMS.items() if k != "school"}),
        signed({k: v for k, v in CLAIMS.items() if k != "sub"}),
        signed({k: v for k, v in CLAIMS.items() if k != "quiz_id"}),
        signed(CLAIMS | {"role": "admin"}),
        signed(CLAIMS | {"quiz_id": 5}),
        signed(CLAIMS | {"quiz_id": [["quiz"]]}),
        signed(CLAIMS | {"exp": "tomorrow"}),
        signed(CLAIMS | {"endpoints": "wss://exam.example"}),
    ],
)
def test_missing_malformed_or_expired_is_401(token):
    error = refused(token)
    assert (error.status, error.code, error.final) == (401, "token_invalid", True)


@pytest.mark.parametrize(
    "claims",
    [
        CLAIMS | {"quiz_id": ["quiz", "other"]},
        CLAIMS | {"quiz_id": []},
        CLAIMS | {"quiz_attempt_id": ""},
        {k: v for k, v in CLAIMS.items() if k != "quiz_attempt_id"},
        CLAIMS | {"school": ""},
        CLAIMS | {"sub": ""},
    ],
)
def test_valid_but_not_for_an_exam_is_403(claims):
    assert refused(signed(claims)).status == 403


def test_times_are_compared_with_the_services_clock_and_some_skew():
    assert identity.verify(signed(CLAIMS | {"exp": T0 - 29}), KEYS, T0).subject == "ann"
    assert identity.verify(signed(CLAIMS | {"nbf": T0 + 29}), KEYS, T0).subject == "ann"
    far = CLAIMS | {"exp": 40_000_000_000, "nbf": 39_999_999_000, "iat": 39_999_999_000}
    assert identity.verify(signed(far), KEYS, 39_999_999_500).subject == "ann"
    assert refused(signed(far), 40_000_000_031).status == 401


def test_the_message_of_a_refusal_does_not_repeat_the_token():
    token = signed(CLAIMS, "x" * 32)
    assert token not in refused(token).message


def test_where_the_token_of_a_handshake_stands():
    assert identity.token_of(["proctorwire", "bearer.abc"], None) == "abc"
    assert identity.token_of(["proctorwire", "bearer.abc"], "query") == "abc"
    assert identity.token_of(["proctorwire"], "query") == "query"
    assert identity.token_of([], "") is None
    assert identity.token_of([], None) is None


def test_what_a_principal_may_do():
    assert STUDENT.participant == KEY
    assert not STUDENT.may_watch(EXAM_KEY)
    assert PROCTOR.may_watch(EXAM_KEY)
    assert not PROCTOR.may_watch(EXAM_KEY._replace(quiz_id="third"))
    assert not PROCTOR.may_watch(EXAM_KEY._replace(school="other"))


def test_a_token_is_for_the_audience_that_it_names():
    ours, other = signed({**CLAIMS, "aud": ["lms", "proctorwire"]}), signed({**CLAIMS, "aud": "lms"})
    assert identity.verify(ours, KEYS, T0, "proctorwire").subject == "ann"
    for token, audience in ((other, "proctorwire"), (signed(CLAIMS), "proctorwire"), (other, "")):
        with pytest.raises(TokenRejected, match="aud does not name this service") as caught:
            identity.verify(token, KEYS, T0, audience)
        assert caught.value.status == 401
