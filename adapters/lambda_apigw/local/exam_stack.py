"""The whole serverless side on one machine: MiniStack, the tables and queues, and the emulated gateway with the real handlers.

The gateway runs as a process of its own, so that whoever starts this keeps their CPU time to themselves. What the handlers used is
summed from the usage lines in their logs, as one would on AWS; those lines are not counted as logs, since a deployment writes one a
minute.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import msgspec

from adapters.lambda_apigw import resources, usage
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session
from adapters.lambda_apigw.config import token_keys
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
from core.participant import ExamKey, Participant
from core.policy import Policy

_T = TypeVar("_T")
_HANDLER = "adapters.lambda_apigw.handler"
_CREDENTIALS = Credentials("AKIDLOCAL", "local-secret")
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
        views_window_seconds: float = resources.VIEWS_WINDOW_SECONDS,
        shards: int = 1,
        coalesce: bool = True,
        direct_watchers: int = 3,
        memory_mb: int = 256,
        environments: int = 8,
        limits: Limits | None = None,
        faults: Faults | None = None,
        faulty_table: bool = False,
        port: int = 0,
        management_port: int = 0,
        region: str = "ap-southeast-1",
    ) -> None:
        """`environments` caps the message function; `coalesce` and `direct_watchers` are the shell's. Sweeps, the rule of each
        minute and the window of the queue of views have a deployment's times unless they are scaled here.

        With `faulty_table` the functions reach the table by a way that `throttle_table` can make refuse them.

        Raises `config.ConfigError` for a token secret that is too short.
        """
        token_keys(token_secret)
        self._token_secret = token_secret
        self._policy = policy
        self._sweep_seconds = sweep_seconds
        self._minute_seconds = minute_seconds
        self._views_window_seconds = views_window_seconds
        self._shards = shards
        self._coalesce = coalesce
        self._direct_watchers = direct_watchers
        self._memory_mb = memory_mb
        self._environments = environments
        self._limits = limits or Limits()
        self._faults = faults or Faults()
        self._faulty_table = faulty_table or bool(self._faults.table_throttled or self._faults.table_answer_lost)
        self._port = port
        self._management_port = management_port
        self._region = region
        self._ministack = MiniStack(region=region)
        self._directory = Path()
        self._process: asyncio.subprocess.Process | None = None
        self._ready: dict[str, str] = {}
        self._variables: dict[str, str] = {}

    async def __aenter__(self) -> LocalServerless:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything; functions start with their first invocation. Raises StackError or MiniStackError."""
        self._directory = Path(tempfile.mkdtemp(prefix="proctorwire-lambda-"))
        try:
            await self._ministack.start()
            queue_urls = await asyncio.to_thread(self._create_resources)
            settings_file = self._directory / "settings.json"
            settings_file.write_bytes(msgspec.json.encode(self._settings(*queue_urls)))
            settings_file.chmod(0o600)  # it holds the token secret
            await self._start_gateway(settings_file)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every process and remove what was written. May be called twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        await self._ministack.stop()
        if self._directory != Path():
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = Path()

    @property
    def websocket_url(self) -> str:
        """Where clients connect."""
        return self._ready["websocket_url"]

    @property
    def management_url(self) -> str:
        """The endpoint of the management API."""
        return self._ready["management_url"]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its functions, for whoever runs one more: they hold the token secret."""
        ours = {
            "AWS_REGION": self._region,
            "AWS_ACCESS_KEY_ID": _CREDENTIALS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": _CREDENTIALS.secret_access_key,
            "PROCTORWIRE_SOCKET_URL": self.websocket_url,
        }
        management = self._variables["PROCTORWIRE_MANAGEMENT_URL"].replace("{management_url}", self.management_url)
        return self._variables | ours | {"PROCTORWIRE_MANAGEMENT_URL": management}

    async def usage(self) -> StackUsage:
        """What was used since the start."""
        gateway = msgspec.json.decode(await self._control("GET", "usage"), type=Usage)
        meters = await asyncio.to_thread(
            lambda: {name: _read_meter(self._log_file(name)) for name in gateway.functions}
        )
        return StackUsage(gateway, meters)

    async def journal(self, exam: ExamKey) -> list[Entry]:
        """All journal entries of an exam, in the order of time."""
        return await asyncio.to_thread(lambda: self._read(lambda store: store.journal(exam)))

    async def records(self, exam: ExamKey) -> list[Participant]:
        """All records of an exam, as they are in the table."""
        return await asyncio.to_thread(lambda: self._read(lambda store: list(store.participants(exam))))

    async def connections(self) -> list[str]:
        """The ids of the open connections, oldest first."""
        return msgspec.json.decode(await self._control("GET", "connections"), type=list[str])

    async def logs(self, function: str) -> list[str]:
        """The last lines that a function wrote."""
        return msgspec.json.decode(await self._control("GET", "logs", function), type=list[str])

    async def drop_connection(self, connection: str) -> bool:
        """Cut a client's network; False if there is no such connection."""
        return await self._control("POST", "drop-connection", connection) == b"true"

    async def kill_environment(self, function: str = "message") -> bool:
        """Kill an execution environment, a busy one first; False if the function has none."""
        return await self._control("POST", "kill-environment", function) == b"true"

    async def throttle_table(self, share: float) -> bool:
        """Refuse this share of the requests to the table from now on; False without `faulty_table`."""
        return await self._control("POST", "throttle-table", repr(share)) == b"true"

    def processes(self) -> dict[str, int]:
        """The process ids of the gateway and of MiniStack, to measure what they use."""
        assert self._process is not None  # only while it runs
        return {"gateway": self._process.pid, "ministack": self._ministack.pid}

    # --- inside ---

    def _session(self) -> Session:
        return Session(_CREDENTIALS, self._region)

    def _read(self, read: Callable[[DynamoStore], list[_T]]) -> list[_T]:
        state, journal = (str(table["TableName"]) for table in resources.tables())
        with self._session() as session:
            database = DynamoDb(session.client("dynamodb", self._ministack.endpoint_url))
            return read(DynamoStore(database, state, journal, time.time))

    def _create_resources(self) -> list[str]:
        url = self._ministack.endpoint_url
        queues = [*resources.queues(sweep_timeout_seconds=5, command_timeout_seconds=5), resources.views_queue()]
        with self._session() as session:
            dynamodb, sqs = session.client("dynamodb", url), session.client("sqs", url)
            return resources.create(dynamodb, sqs, resources.tables(), queues)

    def _log_file(self, function: str) -> Path:
        return self._directory / f"{function}.log"

    def _settings(self, sweep_url: str, command_url: str, views_url: str) -> GatewaySettings:
        server = self._ministack.endpoint_url
        state, journal = (str(table["TableName"]) for table in resources.tables())
        variables = {
            "AWS_ENDPOINT_URL": server,
            "PROCTORWIRE_STATE_TABLE": state,
            "PROCTORWIRE_JOURNAL_TABLE": journal,
            "PROCTORWIRE_SWEEP_QUEUE_URL": sweep_url,
            "PROCTORWIRE_COMMAND_QUEUE_URL": command_url,
            "PROCTORWIRE_VIEWS_QUEUE_URL": views_url if self._coalesce else "",
            "PROCTORWIRE_MANAGEMENT_URL": "{management_url}",
            "PROCTORWIRE_TOKEN_SECRET": self._token_secret,
            "PROCTORWIRE_SWEEP_SECONDS": repr(self._sweep_seconds),
            "PROCTORWIRE_SHARDS": str(self._shards),
            "PROCTORWIRE_DIRECT_WATCHERS": str(self._direct_watchers),
            "PROCTORWIRE_MAX_CONNECTION_SECONDS": repr(self._limits.duration_seconds),
            "PROCTORWIRE_USAGE_EVERY_SECONDS": "0",
        }
        if self._faulty_table:
            variables["AWS_ENDPOINT_URL_DYNAMODB"] = "{table_url}"
        if self._policy is not None:
            variables["PROCTORWIRE_POLICY"] = msgspec.json.encode(self._policy).decode()

        self._variables = variables

        def function(name: str, handler: str, *, concurrency: int = 2, timeout_seconds: float = 29.0) -> Function:
            return Function(
                handler=handler,
                memory_mb=self._memory_mb,
                timeout_seconds=timeout_seconds,
                concurrency=concurrency,
                env=variables,
                log_file=str(self._log_file(name)),
            )

        functions = {
            "authorizer": function("authorizer", "adapters.lambda_apigw.authorizer:on_authorize"),
            "connect": function("connect", f"{_HANDLER}:on_connect"),
            "disconnect": function("disconnect", f"{_HANDLER}:on_disconnect"),
            "message": function("message", f"{_HANDLER}:on_message", concurrency=self._environments),
            "sweep": function("sweep", f"{_HANDLER}:on_sweep", timeout_seconds=60.0),
            "command": function("command", f"{_HANDLER}:on_command", timeout_seconds=60.0),
            "views": function("views", f"{_HANDLER}:on_views"),
            "minute": function("minute", f"{_HANDLER}:on_minute", concurrency=1),
        }
        views = Queue(
            url=views_url,
            function="views",
            endpoint_url=server,
            batch_size=resources.VIEWS_BATCH_SIZE,
            batching_window_seconds=self._views_window_seconds,
        )
        routes = {"$connect": "connect", "$disconnect": "disconnect", "$default": "message"}
        return GatewaySettings(
            functions=functions,
            routes=routes | dict.fromkeys(CLIENT_ACTIONS, "message"),
            authorizer=Authorizer(function="authorizer"),
            queues=(
                Queue(url=sweep_url, function="sweep", endpoint_url=server, batch_size=1),
                Queue(url=command_url, function="command", endpoint_url=server, batch_size=1),
                *([views] if self._coalesce else []),
            ),
            schedules=(Schedule(name="minute", function="minute", interval_seconds=self._minute_seconds),),
            limits=self._limits,
            faults=self._faults,
            table_endpoint_url=server if self._faulty_table else "",
            port=self._port,
            management_port=self._management_port,
            region=self._region,
        )

    async def _start_gateway(self, settings_file: Path) -> None:
        errors = self._directory / "gateway.err"  # a file, because nobody would empty a pipe
        with errors.open("wb") as file:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "adapters.lambda_apigw.local", "--settings", str(settings_file)),
                "--die-with-parent",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        assert process.stdout is not None  # asked for above
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        except TimeoutError:
            raise StackError(f"the emulated gateway did not start within {_START_SECONDS:.0f} s") from None
        if not line:
            complaint = errors.read_text(errors="replace").strip().splitlines()
            raise StackError(complaint[-1] if complaint else "the emulated gateway ended at once")
        ready = msgspec.json.decode(line, type=dict[str, object])
        self._ready = {name: str(value) for name, value in ready.items()}

    async def _control(self, method: str, *path: str) -> bytes:
        """One request to the gateway's control endpoint; a 404 is `false`."""
        url = "/".join((self._ready["control_url"], *(quote(part, safe="") for part in path)))
        request = urllib.request.Request(  # noqa: S310  our own process, over http
            url, method=method, headers={"x-control-token": self._ready["control_token"]}
        )

        def exchange() -> bytes:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                    body: bytes = answer.read()
                    return body
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 404:
                        return b"false"
                    raise

        return await asyncio.to_thread(exchange)


def _read_meter(path: Path) -> FunctionMeter:
    """Add up a function's usage lines."""
    calls: dict[str, int] = {}
    read_units = write_units = 0.0
    line_bytes = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            used = usage.read_line(line)
            if used is None:
                continue
            line_bytes += len(line.encode())
            read_units += used.pop("read_units", 0.0)
            write_units += used.pop("write_units", 0.0)
            for kind, count in used.items():
                calls[kind] = calls.get(kind, 0) + int(count)
    return FunctionMeter(calls, read_units, write_units, line_bytes)
