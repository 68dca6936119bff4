"""The documented behaviours, on our emulated gateway and on MiniStack; with `--on` also on offline (see `make peers`) and aws."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import peers
import pytest
from behaviours import BEHAVIOURS, GAPS, Behaviour, Probe
from botocore.exceptions import ClientError
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


class StubbedAccount:
    """A session, its credentials and its CloudFormation, which notes what it is asked for; `fails`: the stack can't be made."""

    def __init__(
        self, region: str | None = "eu-west-1", credentials: bool = True, fails: bool = False, expired: bool = False
    ) -> None:
        self.region_name = region
        self.access_key, self.secret_key, self.token = "AKID", "secret", "token"
        self.created: list[str] = []
        self.deleted: list[str] = []
        self._credentials = credentials
        self._fails = fails
        self._expired = expired

    def get_credentials(self) -> StubbedAccount | None:
        return self if self._credentials else None

    def get_frozen_credentials(self) -> StubbedAccount:
        return self

    def client(self, service: str) -> StubbedAccount:
        assert service in ("cloudformation", "sts")
        return self

    def get_caller_identity(self) -> dict[str, str]:
        if self._expired:
            raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "it has expired"}}, "GetCallerIdentity")
        return {"Account": "111122223333"}

    def create_stack(self, **request: Any) -> None:
        assert '"AWS::ApiGatewayV2::Api"' in request["TemplateBody"]
        self.created.append(request["StackName"])

    def get_waiter(self, what: str) -> StubbedAccount:
        return self

    def wait(self, **options: object) -> None:
        if self._fails:
            raise RuntimeError("ROLLBACK_COMPLETE")

    def describe_stacks(self, **_: str) -> dict[str, object]:
        outputs = [{"OutputKey": key, "OutputValue": f"{key.lower()}id"} for key in ("Full", "Bare")]
        return {"Stacks": [{"Outputs": outputs}]}

    def delete_stack(self, **request: str) -> None:
        self.deleted.append(request["StackName"])


async def test_an_account_gets_a_stack_that_is_deleted_at_the_end() -> None:
    account = StubbedAccount()
    async with peers.aws(account) as peer:
        assert account.deleted == []
        assert peer.url == "wss://fullid.execute-api.eu-west-1.amazonaws.com/live"
        assert peer.bare_url == "wss://bareid.execute-api.eu-west-1.amazonaws.com/live"
    assert account.deleted == account.created != []


async def test_a_stack_that_fails_is_deleted_too() -> None:
    account = StubbedAccount(fails=True)
    with pytest.raises(RuntimeError, match="ROLLBACK"):
        async with peers.aws(account):
            pass
    assert account.deleted == account.created != []


@pytest.mark.parametrize(
    ("account", "needed"),
    [
        (StubbedAccount(region=None), "AWS_DEFAULT_REGION"),
        (StubbedAccount(credentials=False), "AWS_ACCESS_KEY_ID"),
        (StubbedAccount(expired=True), "eu-west-1 does not take these credentials: .*it has expired"),
    ],
)
def test_without_an_account_one_line_says_what_is_needed(account: StubbedAccount, needed: str) -> None:
    with pytest.raises(peers.AccountMissing, match=needed) as missing:
        peers.account(account)
    assert "\n" not in str(missing.value)
    assert account.created == []


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
