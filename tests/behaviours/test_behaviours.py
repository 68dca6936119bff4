"""The documented behaviours, on our emulated gateway and on MiniStack; with `--on` also on offline (see `make peers`) and aws."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import peers
import pytest
from behaviours import BEHAVIOURS, GAPS, Behaviour, Probe
from peers import Peer

DEFAULT = ("ours", "ministack")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "peer" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--on", default=None) or DEFAULT
    metafunc.parametrize("peer", dict.fromkeys(chosen), indirect=True, scope="session")
    metafunc.parametrize("behaviour", BEHAVIOURS, ids=[each.name for each in BEHAVIOURS])


@pytest.fixture(scope="session")
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "offline":
            try:
                yield await stack.enter_async_context(
                    peers.serverless_offline(request.config.getoption("--peer-folder"))
                )
            except peers.NpmMissing as missing:
                pytest.fail(str(missing))
        else:
            kinds = {"ours": peers.ours, "ministack": peers.ministack, "aws": peers.aws}
            yield await stack.enter_async_context(kinds[request.param]())


async def test_behaviour(request: pytest.FixtureRequest, peer: Peer, behaviour: Behaviour) -> None:
    if gap := GAPS.get(peer.name, {}).get(behaviour.name):
        request.applymarker(pytest.mark.xfail(reason=gap, strict=True))
    if behaviour.needs == "scaled" and not peer.hard_seconds:
        pytest.skip("the clock of this peer can't be scaled")
    if behaviour.needs == "bare" and not peer.bare_url:
        pytest.skip("this peer serves one API only")
    probe = Probe(peer)
    try:
        await behaviour.check(probe)
    finally:
        probe.close()


def test_every_behaviour_names_its_source_and_every_gap_a_behaviour() -> None:
    names = [each.name for each in BEHAVIOURS]
    assert len(set(names)) == len(names) >= 34
    assert all(each.source for each in BEHAVIOURS)
    for gaps in GAPS.values():
        assert set(gaps) <= set(names)
        assert all(gaps.values())


def test_the_functions_fit_into_a_template() -> None:
    """ "AWS::Lambda::Function Code": inline source of up to 4,096 characters."""
    assert len((Path(__file__).parent / "index.py").read_text()) <= 4_096
