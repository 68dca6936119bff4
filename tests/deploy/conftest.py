"""An AWS to deploy to: MiniStack, empty for each module of tests."""

from __future__ import annotations

import asyncio

import boto3
import pytest

from adapters.lambda_apigw.local.ministack import MiniStack
from deploy import rehearse, stacks, templates

REGION = "ap-southeast-1"


@pytest.fixture(scope="module")
def aws():
    """Its URL. The command finds it, and credentials, in the environment; templates are as the rehearsal adapts them."""
    server = MiniStack(region=REGION)
    asyncio.run(server.start())
    load = templates.load

    def adapted(name):
        template = load(name)
        if name == "lambda":
            return rehearse.adapted(template, server.endpoint_url)
        return rehearse.adapted_ec2(template) if name == "ec2" else template

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(templates, "load", adapted)
        patch.setattr(stacks, "_POLL_SECONDS", 0.05)
        for name, value in (
            ("AWS_ENDPOINT_URL", server.endpoint_url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", REGION),
        ):
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield server.endpoint_url
    asyncio.run(server.stop())


@pytest.fixture
def client(aws):
    """Clients of that AWS."""
    return lambda service: boto3.client(service, region_name=REGION, endpoint_url=aws)


@pytest.fixture
def no_credentials(monkeypatch):
    """A machine that knows no account."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
