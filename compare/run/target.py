"""What a run is pointed at: a deployment on this machine, or one that is there already.

`Target` is all that `comparison` knows of a deployment. The two local ones are started for the run and measured from outside; of
a remote one only what the clients saw is known, and its usage says so by its zeros.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from picows import WSError, WSListener, WSTransport, ws_connect

from adapters.ec2_cluster.connection import Transport
from adapters.ec2_cluster.embedded import EmbeddedRedisError
from adapters.ec2_cluster.local import LocalCluster, LocalClusterError
from adapters.lambda_apigw.local.exam_stack import LocalServerless, StackError, StackUsage
from adapters.lambda_apigw.local.ministack import MiniStackError
from adapters.lambda_apigw.local.settings import Faults, Limits
from compare.bill.usage import ClusterUsage, FunctionUsage, ProcessSplit, ServerlessUsage, ServiceCalls, Trigger, Usage
from compare.run.crowd import sign, signing_key
from compare.run.meter import ProcessMeter, Samples, children
from compare.run.recording import Clock, Traffic
from compare.run.workload import SCHOOL
from core.identity import MIN_SECRET_BYTES, Principal
from core.journal import Entry
from core.participant import ExamKey, Home
from core.policy import Policy

Fault: TypeAlias = Literal["kill_process", "throttle_store", "stop_store", "plan_cut"]
"""What can be done to a local deployment.

kill_process     a worker of the cluster, or an execution environment of the message function, dies without a word
throttle_store   until `heal`: DynamoDB refuses four of five requests; Redis runs for a fifth of the time
stop_store       until `heal`: DynamoDB refuses every request; Redis stands still
plan_cut         returns when it is over: API Gateway's limit of a connection's life; the drain of an instance
"""

_PROBE_SECONDS = 5.0
_STOPPED_SECONDS, _RUNNING_SECONDS = 0.4, 0.1
_STORE_STOPS_AT_MOST = 600.0
_CUT_SECONDS = 60.0
_LOOK_SECONDS = 0.05


class TargetError(Exception):
    """A deployment can't be started or reached. `option` is the command's name for what to change, empty if there is none."""

    def __init__(self, message: str, option: str = "") -> None:
        self.option = option
        self.message = message
        super().__init__(message, option)

    def __str__(self) -> str:
        return f"{self.option}: {self.message}" if self.option else self.message


class Load(Struct, frozen=True):
    """What the clients put on a deployment so far: the part of its usage that is counted outside of it."""

    seconds: float
    students: int
    proctors: int
    connection_minutes: float
    traffic: Traffic


class Target(Protocol):
    """One deployment. `start` before anything else; `stop` ends all that `start` began, within 3 s, and may come at any time."""

    name: Home
    where: str  # for a reader: "this machine", or a host
    is_local: bool  # started by us: its journal can be read, and its clock is ours
    policy: Policy
    token_secret: str

    @property
    def urls(self) -> Sequence[str]:
        """Where clients connect, one for each instance."""

    async def start(self) -> None:
        """Be ready for clients. Raises `TargetError`."""

    async def inject(self, fault: Fault) -> None:
        """Do harm. Raises `TargetError` where that is not possible."""

    async def heal(self) -> None:
        """End what goes on since `inject`."""

    async def usage(self, load: Load) -> Usage:
        """What was used since the start."""

    def memory(self) -> Mapping[str, float]:
        """Bytes by kind of process, when their sum was highest; empty if nobody knows."""

    def samples(self) -> Samples:
        """CPU and memory second by second until `usage` was last asked for; empty if nobody looked."""

    async def journal(self, exam: ExamKey) -> list[Entry]:
        """The exam's journal, as far as it is durable by now."""

    async def stop(self) -> None:
        """End everything that `start` began."""


class ClusterTarget:
    """The cluster: instances as processes on this machine, over one embedded Redis."""

    name: Home = "ec2"
    where = "this machine"
    is_local = True
    policy = Policy()

    def __init__(
        self,
        token_secret: str,
        instances: int = 1,
        workers: int = 2,
        transport: Transport = "picows",
        drain_seconds: float = 5.0,
        silent: bool = False,
    ) -> None:
        self.token_secret = token_secret
        self._instances = instances
        self._workers = workers
        self._cluster = LocalCluster(
            instances=instances,
            workers=workers,
            token_secret=token_secret,
            transport=transport,
            drain_seconds=drain_seconds,
            silent=silent,
        )
        self._stopping: asyncio.Task[None] | None = None
        self._meter = ProcessMeter(self._cluster.pids)
        self._samples = Samples()

    @property
    def urls(self) -> Sequence[str]:
        """One for each instance."""
        return self._cluster.urls

    async def start(self) -> None:
        """Start Redis and the instances."""
        try:
            await self._cluster.start()
        except (LocalClusterError, EmbeddedRedisError, OSError) as exc:
            raise TargetError(f"the cluster did not start: {exc}") from exc
        self._meter.start()

    async def inject(self, fault: Fault) -> None:
        """Kill one worker, whose supervisor starts another one; stop Redis; drain the first instance."""
        match fault:
            case "kill_process":
                os.kill(random.choice(self._cluster.pids()["worker"]), signal.SIGKILL)  # noqa: S311
            case "throttle_store":
                self._stopping = asyncio.create_task(self._stand_still(_STOPPED_SECONDS, _RUNNING_SECONDS))
            case "stop_store":
                self._stopping = asyncio.create_task(self._stand_still(_STORE_STOPS_AT_MOST, 0.0))
            case "plan_cut":
                draining = self._cluster.ready[0].supervisor_pid
                os.kill(draining, signal.SIGTERM)
                await _until(lambda: not children(draining), "the end of the drain")

    async def _stand_still(self, stopped: float, running: float) -> None:
        """Stop Redis again and again; whoever cancels this has it run."""
        (redis,) = self._cluster.pids()["redis"]
        try:
            while True:
                os.kill(redis, signal.SIGSTOP)
                await asyncio.sleep(stopped)
                os.kill(redis, signal.SIGCONT)
                await asyncio.sleep(running)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(redis, signal.SIGCONT)

    async def heal(self) -> None:
        """Let Redis run."""
        if self._stopping is not None:
            self._stopping.cancel()
            await asyncio.gather(self._stopping, return_exceptions=True)
            self._stopping = None

    async def usage(self, load: Load) -> ClusterUsage:
        """Processor time and memory of the processes; frames and bytes as the clients counted them."""
        self._meter.sample()
        self._samples = self._meter.each_second()
        traffic = load.traffic
        return ClusterUsage(
            duration_seconds=load.seconds,
            students=load.students,
            proctors=load.proctors,
            reports=traffic.reports,
            cpu_seconds=_split(self._meter.cpu_seconds()),
            memory_bytes=_split(self._meter.highest_memory),
            memory_idle_bytes=_split(self._meter.first_memory),
            connections=traffic.most_open,
            connection_minutes=load.connection_minutes,
            connects=traffic.connects,
            frames_out=traffic.frames_out,
            ingress_bytes=traffic.bytes_in,
            egress_bytes=traffic.bytes_out,
            journal_entries=0,
            instances=self._instances,
            workers=self._workers,
        )

    def memory(self) -> Mapping[str, float]:
        """Of all processes of all instances."""
        return self._meter.highest_memory

    def samples(self) -> Samples:
        """Of all processes of all instances."""
        return self._samples

    async def journal(self, exam: ExamKey) -> list[Entry]:
        """What the journal processes have carried on."""
        return await asyncio.to_thread(self._cluster.journal, exam)

    async def stop(self) -> None:
        """End Redis and the instances."""
        await self.heal()
        self._meter.stop()
        await self._cluster.stop()


class ServerlessTarget:
    """The serverless deployment: the real handlers behind an emulated API Gateway."""

    name: Home = "lambda"
    where = "this machine"
    is_local = True
    policy = Policy()

    def __init__(
        self,
        token_secret: str,
        region: str = "ap-southeast-1",
        limits: Limits | None = None,
        faults: Faults | None = None,
        faulty_table: bool = False,
    ) -> None:
        self.token_secret = token_secret
        self._stack = LocalServerless(
            token_secret=token_secret, region=region, limits=limits, faults=faults, faulty_table=faulty_table
        )
        self._meter = ProcessMeter(self._environments)

    @property
    def urls(self) -> Sequence[str]:
        """The gateway's."""
        return (self._stack.websocket_url,)

    async def start(self) -> None:
        """Start the store, the queues and the gateway."""
        try:
            await self._stack.start()
        except (StackError, MiniStackError, OSError) as exc:
            raise TargetError(f"the emulated serverless side did not start: {exc}") from exc
        self._meter.start()

    def _environments(self) -> dict[str, list[int]]:
        """The execution environments are the gateway's children; gateway and store are stand-ins, and nobody's cost."""
        return {"execution environments": children(self._stack.processes()["gateway"])}

    async def inject(self, fault: Fault) -> None:
        """Kill an execution environment, a busy one first; refuse requests to the table; wait for the gateway's cut."""
        match fault:
            case "kill_process":
                await self._stack.kill_environment()
            case "throttle_store":
                await self._throttle(_STOPPED_SECONDS / (_STOPPED_SECONDS + _RUNNING_SECONDS))
            case "stop_store":
                await self._throttle(1.0)
            case "plan_cut":
                there = set(await self._stack.connections())
                await _until_async(lambda: self._none_of(there), "the cut of every connection")

    async def _none_of(self, connections: set[str]) -> bool:
        return not connections & set(await self._stack.connections())

    async def _throttle(self, share: float) -> None:
        if not await self._stack.throttle_table(share):
            raise TargetError("this serverless side was started without a faulty way to its table")

    async def heal(self) -> None:
        """Refuse nothing any more."""
        await self._stack.throttle_table(0.0)

    async def usage(self, load: Load) -> ServerlessUsage:
        """What the gateway, the handlers and the store counted."""
        try:
            return serverless_usage(await self._stack.usage(), load)
        except OSError as exc:
            raise TargetError(f"the emulated gateway does not answer: {exc}") from exc

    def memory(self) -> Mapping[str, float]:
        """Of the execution environments."""
        return self._meter.highest_memory

    def samples(self) -> Samples:
        """None: the emulator's own processes are in between."""
        return Samples()

    async def journal(self, exam: ExamKey) -> list[Entry]:
        """The journal table's entries."""
        return await self._stack.journal(exam)

    async def stop(self) -> None:
        """End every process."""
        self._meter.stop()
        await self._stack.stop()


class RemoteTarget:
    """A deployment that is there already. Its journal and its processes are out of reach."""

    is_local = False
    policy = Policy()

    def __init__(self, name: Home, url: str, token_secret: str) -> None:
        self.name = name
        self.token_secret = token_secret
        self.where = urlsplit(url).hostname or url
        self._option = f"--{name}-url"
        self._url = url

    @property
    def urls(self) -> Sequence[str]:
        """The given one."""
        return (self._url,)

    async def start(self) -> None:
        """See that it answers and takes our tokens."""
        if urlsplit(self._url).scheme not in ("ws", "wss") or not urlsplit(self._url).hostname:
            raise TargetError(f"{self._url!r} is no WebSocket address; give wss://HOST/PATH", self._option)
        if len(signing_key(self.token_secret)[1].encode()) < MIN_SECRET_BYTES:
            raise TargetError(
                f"shorter than {MIN_SECRET_BYTES} bytes; give the secret that the deployment was started with",
                "--token-secret",
            )
        token = sign(Principal("proctor", SCHOOL, "probe", ("probe",), Clock()() + 600), self.token_secret)
        try:
            transport, _ = await ws_connect(
                _Probe,
                self._url,
                extra_headers={"Sec-WebSocket-Protocol": f"proctorwire, bearer.{token}"},
                websocket_handshake_timeout=_PROBE_SECONDS,
                logger_name="compare.probe",
            )
        except WSError as exc:
            response = getattr(exc, "response", None)
            status = getattr(response, "status", None)
            if status in (401, 403):
                raise TargetError(
                    f"{self.where} refused our token ({int(status)}); give the secret that it was started with",
                    "--token-secret",
                ) from exc
            answer = f"answered with status {int(status)}" if status else "is no WebSocket server"
            raise TargetError(f"{self.where} {answer}; check the address and its path", self._option) from exc
        except (OSError, TimeoutError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "no answer"
            raise TargetError(f"{self.where} can't be reached ({reason}); check the address", self._option) from exc
        transport.send_close()
        transport.disconnect()

    async def inject(self, fault: Fault) -> None:
        """Not to somebody else's machines."""
        raise TargetError("faults can be injected into local deployments only", self._option)

    async def heal(self) -> None:
        """There is nothing to heal."""

    async def usage(self, load: Load) -> Usage:
        """What the clients counted; of processes and invocations nothing is known."""
        if self.name == "lambda":
            return _counted_by_clients(load)
        unknown = ProcessSplit()
        traffic = load.traffic
        return ClusterUsage(
            duration_seconds=load.seconds,
            students=load.students,
            proctors=load.proctors,
            reports=traffic.reports,
            cpu_seconds=unknown,
            memory_bytes=unknown,
            connections=traffic.most_open,
            connection_minutes=load.connection_minutes,
            connects=traffic.connects,
            frames_out=traffic.frames_out,
            ingress_bytes=traffic.bytes_in,
            egress_bytes=traffic.bytes_out,
            journal_entries=0,
        )

    def memory(self) -> Mapping[str, float]:
        """Out of reach."""
        return {}

    def samples(self) -> Samples:
        """Out of reach."""
        return Samples()

    async def journal(self, exam: ExamKey) -> list[Entry]:
        """Out of reach."""
        return []

    async def stop(self) -> None:
        """It is not ours to stop."""


async def _until_async(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until the condition holds. Raises TargetError."""
    deadline = time.monotonic() + _CUT_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise TargetError(f"no sign of {what} within {_CUT_SECONDS:.0f} s")
        await asyncio.sleep(_LOOK_SECONDS)


async def _until(condition: Callable[[], bool], what: str) -> None:
    async def look() -> bool:
        return condition()

    await _until_async(look, what)


class _Probe(WSListener):
    """Listens to nothing."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        pass


_TRIGGERS: Mapping[str, Trigger] = {
    "authorizer": "connection",
    "connect": "connection",
    "disconnect": "connection",
    "message": "message",
    "command": "message",
    "views": "message",
    "sweep": "timer",
    "minute": "timer",
}


def serverless_usage(stack: StackUsage, load: Load) -> ServerlessUsage:
    """The stack's own account of what it used, in the words of a bill."""
    gateway = stack.gateway
    functions: dict[str, FunctionUsage] = {}
    for name, function in gateway.functions.items():
        if not function.invocations:
            continue
        calls = stack.meters[name].calls
        functions[name] = FunctionUsage(
            trigger=_TRIGGERS[name],
            memory_mb=function.memory_mb,
            invocations=function.invocations,
            handler_cpu_ms=function.cpu_ms,
            handler_wall_ms=function.wall_ms,
            calls=ServiceCalls(**{kind: calls.get(kind, 0) for kind in ServiceCalls.__struct_fields__}),
            cold_starts=function.environments_started,
            init_cpu_ms=function.init_cpu_ms,
        )
    return msgspec.structs.replace(
        _counted_by_clients(load),
        messages_in=gateway.messages_in_units,
        messages_out=gateway.messages_out_units,
        connection_minutes=gateway.connection_minutes,
        connects=gateway.connects,
        disconnects=gateway.disconnects,
        functions=functions,
        dynamodb_read_units=stack.read_units,
        dynamodb_write_units=stack.write_units,
        sqs_requests=stack.sqs_requests,
        log_bytes=stack.log_bytes,
        egress_bytes=gateway.bytes_out,
    )


def _counted_by_clients(load: Load) -> ServerlessUsage:
    traffic = load.traffic
    return ServerlessUsage(
        duration_seconds=load.seconds,
        students=load.students,
        proctors=load.proctors,
        reports=traffic.reports,
        messages_in=traffic.units_in,
        messages_out=traffic.units_out,
        connection_minutes=load.connection_minutes,
        connects=traffic.connects,
        disconnects=traffic.disconnects,
        functions={},
        dynamodb_read_units=0.0,
        dynamodb_write_units=0.0,
        sqs_requests=0,
        log_bytes=0,
        egress_bytes=traffic.bytes_out,
    )


def _split(by_role: Mapping[str, float]) -> ProcessSplit:
    """By the roles of the cluster's processes."""
    return ProcessSplit(
        workers=by_role.get("worker", 0.0),
        redis=by_role.get("redis", 0.0),
        supervisor=by_role.get("supervisor", 0.0),
        journal=by_role.get("journal", 0.0),
    )
