from pathlib import Path

import pytest

PEERS = ("ours", "ministack", "offline", "aws")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on",
        action="append",
        choices=PEERS,
        help="where the behaviour suite runs; may be given several times (aws: your account, a stack that is deleted at the end)",
    )
    parser.addoption(
        "--peer-folder",
        type=Path,
        default=Path("build/peers").absolute(),
        help="where `make peers` has installed offline",
    )


def pytest_configure(config: pytest.Config) -> None:
    """What a chosen peer needs and is not there is one line at the start, not an error of each test."""
    if "aws" in (config.getoption("--on", None) or ()):
        import peers

        try:
            peers.account()
        except peers.AccountMissing as missing:
            raise pytest.UsageError(str(missing)) from None
