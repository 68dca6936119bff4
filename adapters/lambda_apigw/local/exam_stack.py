"""The whole serverless side on one machine: MiniStack, the tables and queues, and the emulated gateway with the real handlers.

The gateway runs as a process of its own, so that whoever starts this keeps their CPU time to themselves. What the handlers used is
summed from the usage lines in their logs, as one would on AWS; those lines are not counted as logs, since a deployment writes one a
minute.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import msgspec
from msgspec.structs import asdict

from adapters.lambda_apigw import resources, usage
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session
from adapters.lambda_apigw.config import token_keys
from adapters.lambda_apigw.local import child_process
from adapters.lambda_apigw.local.ministack import MiniStack
from adapters.lambda_apigw.local.settings import (
    Authorizer,
    Faults,
    Function,
    GatewaySettings,
    Limits,
    Queue,
    Schedule,
)
from adapters.lambda_apigw.local.usage import Usage
from adapters.lambda_apigw.store import DynamoStore
from core.journal import Entry
from core.messages import CLIENT_ACTIONS
from core.participant import ExamKey
from core.policy import Policy

_HANDLER = "adapters.lambda_apigw.handler"
_START_SECONDS = 20.0
_STOP_SECONDS = 3.0


class StackError(Exception):
    """The local stack did not start; the message is one line for the user."""


class FunctionMeter(msgspec.Struct, frozen=True):
    """What one function used, as it counted itself. `usage_line_bytes` are in the gateway's `log_bytes` for this function."""

    calls: dict[str, int]
    read_units: float
    write_units: float
    usage_line_bytes: int


class StackUsage(msgspec.Struct, frozen=True):
    """What was used since the start: the gateway's counts, and those of the handlers by function."""

    gateway: Usage
    meters: dict[str, FunctionMeter]

    @property
    def read_units(self) -> float:
        """DynamoDB read request units, as returned."""
        return sum(meter.read_units for meter in self.meters.values())

    @property
    def write_units(self) -> float:
        """DynamoDB write request units, as returned, and those of refused conditional writes."""
        return sum(meter.write_units for meter in self.meters.values())

    @property
    def sqs_requests(self) -> int:
        """Requests to SQS: by handlers, and by the event source mappings."""
        polled = sum(q.receive_requests + q.delete_requests for q in self.gateway.queues.values())
        return polled + sum(meter.calls.get("sqs", 0) for meter in self.meters.values())

    @property
    def log_bytes(self) -> int:
        """What the handlers logged, without the usage lines."""
        written = sum(function.log_bytes for function in self.gateway.functions.values())
        return written - sum(meter.usage_line_bytes for meter in self.meters.values())


class LocalServerless:
    """The serverless deployment, emulated; an async context manager. Everything it starts and writes is gone after `stop`."""

    def __init__(
        self,
        *,
        token_secret: str,
        policy: Policy | None = None,
        sweep_seconds: float = 10.0,
        minute_seconds: float = 60.0,
        shards: int = 1,
        memory_mb: int = 256,
        environments: int = 8,
        limits: Limits | None = None,
        faults: Faults | None = None,
        port: int = 0,
        management_port: int = 0,
        region: str = "ap-southeast-1",
    ) -> None:
        """`environments` caps the message function. Raises `config.ConfigError` for a token secret that is too short."""
        token_keys(token_secret)
        self._token_secret = token_secret
        self._policy = policy
        self._sweep_seconds = sweep_seconds
        self._minute_seconds = minute_seconds
        self._shards = shards
        self._memory_mb = memory_mb
        self._environments = environments
        self._limits = limits or Limits()
        self._faults = faults or Faults()
        self._port = port
        self._management_port = management_port
        self._region = region
        self._ministack = MiniStack(region=region)
        self._directory = Path()
        self._process: object | None = None
        self._gateway: asyncio.subprocess.Process | None = None
        self._ready: dict[str, str] = {}
