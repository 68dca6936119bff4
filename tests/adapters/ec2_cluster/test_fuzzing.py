"""What no input may do: bring down the decoder, the handshake, the message layer or the reader of Redis's answers.

The quick half of `make fuzz`, with the same targets.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_targets import SEEDS, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.ec2_cluster.handshake import origin_is_allowed, read_handshake, read_request

settings.register_profile("fuzz", max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Something like a real input, with pieces cut out, doubled and put in."""

    @st.composite
    def build(draw: Callable[[st.SearchStrategy[object]], object]) -> bytes:
        whole = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(whole)))
            until = min(len(whole), at + draw(st.integers(0, 8)))
            whole[at:until] = draw(
                st.binary(max_size=8) | st.sampled_from([b'"', b"{", b"\r\n", b"\xff", b"99999999999999999999"])
            )
        return bytes(whole)

    return build()


@pytest.mark.parametrize("origin", [b"https://[:;1]:8", b"https://[", b"//]", b"https://\xe9"])
def test_an_origin_that_is_none_is_not_allowed(origin: bytes) -> None:
    handshake = read_handshake(read_request(SEEDS["handshake"][0].replace(b"https://[::1]:8", origin), 64), "", False)
    assert not origin_is_allowed(handshake, ("https://school.example",))


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_brings_it_down(name: str) -> None:
    target = TARGETS[name]

    @settings(settings.get_profile("fuzz"))
    @given(st.binary(max_size=400) | mutated(SEEDS[name]))
    def throw(data: bytes) -> None:
        target(data)

    throw()


def test_make_fuzz_knows_the_targets_that_its_page_names() -> None:
    root = Path(__file__).parents[3]
    made = subprocess.run(["make", "-n", "fuzz"], cwd=root, capture_output=True, text=True, check=True)
    assert "tests/support/fuzz.py" in made.stdout
    script = [sys.executable, str(root / "tests" / "support" / "fuzz.py"), "--only", "nothing"]
    refused = subprocess.run(script, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    page = (root / "docs" / "architecture.md").read_text().partition("## Fuzzing")[2]
    for name in (*TARGETS, "http"):
        assert name in refused.stderr
        assert f"`{name}`" in page
        assert name == "http" or SEEDS[name]
