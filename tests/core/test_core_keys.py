"""Tokens signed by an LMS with a key of its own: what a JWKS lets in, and what it must not."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from core.errors import TokenRejected
from core.identity import public_keys, verify

T0 = 1_000_000.0
CLAIMS = {"sub": "ann", "role": "student", "school": "north", "quiz_id": "q", "exp": T0 + 60, "quiz_attempt_id": "a"}
PRIVATE = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KINDS = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


def jwk(algorithm, key, kid):
    return {**KINDS[algorithm].to_jwk(key, as_dict=True), "kid": kid}


JWKS = json.dumps(
    {"keys": [jwk(algorithm, key.public_key(), f"k-{algorithm}") for algorithm, key in PRIVATE.items()]}
).encode()


def signed(algorithm, kid, key=None):
    return jwt.encode(CLAIMS, key or PRIVATE[algorithm], algorithm=algorithm, headers={"kid": kid})


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_token_signed_with_a_listed_key_is_accepted(algorithm):
    assert verify(signed(algorithm, f"k-{algorithm}"), public_keys(JWKS), T0).subject == "ann"


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_key_is_for_its_own_algorithm_only(algorithm):
    keys = public_keys(JWKS)
    for other in set(PRIVATE) - {algorithm}:
        with pytest.raises(TokenRejected, match="can't be verified"):
            verify(signed(algorithm, f"k-{other}"), keys, T0)


def test_a_public_key_is_no_secret():
    """The confusion of algorithms: an HS256 token signed with the text of a public key."""
    pem = (
        PRIVATE["RS256"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    header, payload = (
        jwt.utils.base64url_encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": "k-RS256"}, CLAIMS)
    )
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(header + b"." + payload, pem)
    token = b".".join((header, payload, jwt.utils.base64url_encode(signature))).decode()
    with pytest.raises(TokenRejected):
        verify(token, public_keys(JWKS), T0)


def test_an_unsigned_token_is_none():
    token = jwt.encode(CLAIMS, None, algorithm="none", headers={"kid": "k-RS256"})
    with pytest.raises(TokenRejected):
        verify(token, public_keys(JWKS), T0)


def test_secrets_and_public_keys_live_side_by_side():
    keys = {**public_keys(JWKS), "": "s" * 32}
    assert verify(jwt.encode(CLAIMS, "s" * 32), keys, T0).subject == "ann"
    assert verify(signed("ES256", "k-ES256"), keys, T0).subject == "ann"
    with pytest.raises(TokenRejected, match="kid"):
        verify(signed("ES256", "another"), keys, T0)


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_service_without_public_keys_says_what_it_can_check(algorithm):
    """On Lambda there are none, and an LMS that signs for a cluster has to know."""
    with pytest.raises(TokenRejected, match=rf"signed with {algorithm}; .*HS256") as refused:
        verify(signed(algorithm, f"k-{algorithm}"), {"": "s" * 32}, T0)
    assert refused.value.status == 401


def test_keys_that_we_do_not_take_are_left_out():
    weak = rsa.generate_private_key(65537, 1024).public_key()
    listed = [
        jwk("RS256", weak, "weak"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"},
        {**jwk("RS256", PRIVATE["RS256"].public_key(), "encrypts"), "use": "enc"},
        {key: value for key, value in jwk("ES256", PRIVATE["ES256"].public_key(), "").items() if key != "kid"},
        jwk("ES256", ec.generate_private_key(ec.SECP384R1()).public_key(), "p-384"),
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": ["RSA"], "kid": "odd"},
    ]
    assert public_keys(json.dumps({"keys": listed}).encode()) == {}


def test_a_private_key_in_the_list_is_read_as_a_public_one():
    text = json.dumps({"keys": [jwk("EdDSA", PRIVATE["EdDSA"], "k")]}).encode()
    assert verify(signed("EdDSA", "k"), public_keys(text), T0).subject == "ann"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b"\xff"])
def test_what_is_no_jwks_is_refused(text):
    with pytest.raises(TokenRejected):
        public_keys(text)


def test_why_a_token_is_refused_tells_nothing_of_the_library():
    with pytest.raises(TokenRejected) as refused:
        verify("a.b.c", {"": "s" * 32}, T0)
    assert refused.value.message == "the token can't be verified"
