"""`LocalGateway`: the front, the management endpoint, the functions, the queues and the rules as one object."""

from __future__ import annotations

import random
import resource
import secrets
import sys
import time
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

import msgspec

from adapters.lambda_apigw.local.environments import Concurrency, FunctionPool
from adapters.lambda_apigw.local.gateway import Gateway
from adapters.lambda_apigw.local.http_server import HttpServer, Request, Response
from adapters.lambda_apigw.local.management import Management
from adapters.lambda_apigw.local.queues import QueueMapping, Rule
from adapters.lambda_apigw.local.settings import Function, GatewaySettings
from adapters.lambda_apigw.local.table_faults import TableFaults
from adapters.lambda_apigw.local.throttle import TokenBucket
from adapters.lambda_apigw.local.usage import Usage


class LocalGateway:
    """An emulated WebSocket API with everything behind it; an async context manager.

    Also serves a control endpoint on the management port, for a gateway that runs as a process of its own; each of its
    requests must carry `control_token` in the header `x-control-token`:

    * `GET /_local/usage`: a `Usage` as JSON.
    * `POST /_local/kill-environment/{function}`: kill one of its execution environments, a busy one first.
    * `POST /_local/drop-connection/{connection id}`: cut a client's network.
    * `POST /_local/throttle-table/{share}`: from now on refuse this share of the requests to the table, 0 to 1.
    * `GET /_local/connections`: the ids of the open connections.
    * `GET /_local/logs/{function}`: its last log lines.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.control_token = secrets.token_urlsafe(24)
        self._started_at = time.monotonic()
        self._pools: dict[str, FunctionPool] = {}
        self._mappings: list[QueueMapping] = []
        self._rules: list[Rule] = []
        self._account = TokenBucket(settings.limits.rate_per_second, settings.limits.burst)
        rng = random.Random(settings.faults.seed)  # noqa: S311  reproducible faults
        self._gateway = Gateway(settings, self._pools, self._account, rng)
        self._management = Management(settings, self._gateway, self._account)
        self._http: HttpServer | None = None
        self._table = TableFaults(settings.table_endpoint_url, settings.faults) if settings.table_endpoint_url else None
        self._table_url = ""

    async def __aenter__(self) -> LocalGateway:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, and start to poll queues. Functions start with their first invocation. Raises OSError."""
        self._started_at = time.monotonic()
        await self._gateway.start()
        self._http = await HttpServer.start(self._handle, self.settings.host, self.settings.management_port)
        settings = self.settings
        if self._table:
            self._table_url = await self._table.start(settings.host)
        concurrency = Concurrency(settings.limits.account_concurrency)
        for name, function in settings.functions.items():
            self._pools[name] = FunctionPool(
                name,
                function,
                self._variables(function),
                region=settings.region,
                account_id=settings.account_id,
                faults=settings.faults,
                account=concurrency,
                starts=settings.limits.environments_per_ten_seconds,
            )
        self._mappings = [
            QueueMapping(
                queue,
                self._pools[queue.function],
                credentials=settings.credentials,
                region=settings.region,
                faults=settings.faults,
            )
            for queue in settings.queues
        ]
        self._rules = [
            Rule(schedule, self._pools[schedule.function], region=settings.region, account_id=settings.account_id)
            for schedule in settings.schedules
        ]
        for mapping in self._mappings:
            mapping.start()
        for rule in self._rules:
            rule.start()

    async def stop(self) -> None:
        """Stop everything; no process and no socket is left. May be called twice."""
        for mapping in self._mappings:
            await mapping.stop()
        for rule in self._rules:
            await rule.stop()
        await self._gateway.stop()
        if self._http:
            await self._http.close()
        for pool in self._pools.values():
            await pool.stop()
        if self._table:
            await self._table.stop()

    def _variables(self, function: Function) -> dict[str, str]:
        credentials = self.settings.credentials
        variables = {
            "AWS_ACCESS_KEY_ID": credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
            "AWS_SESSION_TOKEN": credentials.session_token,
        }
        variables = {name: value for name, value in variables.items() if value}
        for name, value in function.env.items():
            for placeholder, url in (
                ("{management_url}", self.management_url),
                ("{websocket_url}", self.websocket_url),
                ("{table_url}", self._table_url),
            ):
                value = value.replace(placeholder, url)
            variables[name] = value
        return variables

    @property
    def websocket_url(self) -> str:
        """Where clients connect; `/` and `/ws` of the same host answer too."""
        return f"ws://{self.settings.host}:{self._gateway.port}/{self.settings.stage}"

    @property
    def management_url(self) -> str:
        """The endpoint of the API Gateway Management API; the same without the stage answers too."""
        assert self._http  # known only after start
        return f"http://{self.settings.host}:{self._http.port}/{self.settings.stage}"

    @property
    def control_url(self) -> str:
        """The control endpoint, without a trailing slash."""
        assert self._http  # known only after start
        return f"http://{self.settings.host}:{self._http.port}/_local"

    @property
    def connection_ids(self) -> list[str]:
        """The open connections, oldest first."""
        return list(self._gateway.connections)

    @property
    def environment_pids(self) -> dict[str, list[int]]:
        """Processes of the execution environments by function."""
        return {name: pool.pids for name, pool in self._pools.items()}

    def kill_environment(self, function: str) -> bool:
        """Kill one execution environment, a busy one first. False if it has none. Raises KeyError."""
        return self._pools[function].kill_environment()

    def drop_connection(self, connection_id: str) -> bool:
        """Cut a client's network: it sees 1006. False if there is no such connection."""
        return self._gateway.drop_connection(connection_id)

    def throttle_table(self, share: str) -> bool:
        """Refuse this share of the requests to the table. False if there is no faulty way to it, or for what is no share."""
        try:
            value = float(share)
        except ValueError:
            return False
        if self._table is None or not 0 <= value <= 1:
            return False
        self._table.throttled_share = value
        return True

    def log_lines(self, function: str) -> list[str]:
        """The last lines a function wrote, at most 1,000. Raises KeyError."""
        return list(self._pools[function].log_lines)

    def usage(self) -> Usage:
        """What was used since the start."""
        counters = self._gateway.counters
        seconds, minutes = self._gateway.open_seconds()
        own = resource.getrusage(resource.RUSAGE_SELF)
        return Usage(
            seconds=time.monotonic() - self._started_at,
            messages_in=counters.messages_in,
            messages_in_units=counters.messages_in_units,
            bytes_in=counters.bytes_in,
            messages_out=counters.messages_out,
            messages_out_units=counters.messages_out_units,
            bytes_out=counters.bytes_out,
            bytes_out_with_overhead=counters.bytes_out_with_overhead,
            error_frames=dict(counters.error_frames),
            connects=counters.connects,
            connects_refused=dict(counters.connects_refused),
            connections_now=len(self._gateway.connections),
            connection_seconds=seconds,
            connection_minutes=seconds / 60,
            connection_minutes_rounded_up=minutes,
            disconnects=counters.disconnects,
            disconnects_lost=counters.disconnects_lost,
            close_codes=dict(counters.close_codes),
            posts=dict(counters.posts),
            other_management_calls=dict(counters.other_management_calls),
            throttled_messages=counters.throttled_messages,
            functions={name: pool.usage() for name, pool in self._pools.items()},
            queues={mapping.name: mapping.usage() for mapping in self._mappings},
            schedule_invocations=sum(rule.invocations for rule in self._rules),
            gateway_cpu_seconds=own.ru_utime + own.ru_stime,
            gateway_memory_mb=_resident_bytes() / 2**20,
        )

    def _handle(self, request: Request) -> Response:
        if request.target.startswith("/_local/"):
            return self._control(request)
        return self._management.handle(request)

    def _control(self, request: Request) -> Response:
        given = request.headers.get("x-control-token", "")
        if not compare_digest(given.encode(), self.control_token.encode()):
            return Response(403, b'{"message":"x-control-token is missing or wrong"}')
        _, _, command, *arguments = [unquote(part) for part in request.target.partition("?")[0].split("/")]
        actions: dict[tuple[str, str, int], Callable[..., object]] = {
            ("GET", "usage", 0): self.usage,
            ("GET", "connections", 0): lambda: self.connection_ids,
            ("GET", "logs", 1): self.log_lines,
            ("POST", "kill-environment", 1): self.kill_environment,
            ("POST", "drop-connection", 1): self.drop_connection,
            ("POST", "throttle-table", 1): self.throttle_table,
        }
        action = actions.get((request.method, command, len(arguments)))
        if action is None:
            return Response(404, b'{"message":"no such control request"}')
        try:
            result = action(*arguments)
        except KeyError:
            return Response(404, b'{"message":"no such function"}')
        return Response(404 if result is False else 200, msgspec.json.encode(result))


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
