"""Execution environments: one process each, one invocation at a time, started on demand and reused warm.

As on Lambda an invocation that finds no free environment causes a new one, up to the function's cap, and is served by
whichever is free first; an environment whose handler times out or whose process dies is gone and with it everything it
kept in memory; an idle one is ended after a while. A handler that raises keeps its environment. Unlike on Lambda, an
environment is frozen between invocations only if the function says `freeze`, and with the cap reached an invocation waits
unless it says `throttle_at_cap`.

Sources: "Understanding the Lambda execution environment lifecycle", "Lambda function scaling" (Lambda developer guide).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Mapping
from pathlib import Path
from struct import Struct
from typing import IO, NoReturn

import msgspec

from adapters.lambda_apigw.local import child_process
from adapters.lambda_apigw.local.settings import Faults, Function
from adapters.lambda_apigw.local.throttle import TokenBucket
from adapters.lambda_apigw.local.usage import FunctionUsage, quantiles

_MAIN = str(Path(__file__).with_name("environment_main.py"))
_REQUEST = Struct(">Id36s")
_ANSWER = Struct(">I")
#: "Lambda ends the INIT phase after ten seconds."
INIT_TIMEOUT_SECONDS = 10.0
_SAMPLES = 20_000
_LONGEST_LINE = 64 * 1024


class InvocationFailed(Exception):
    """The handler raised, or its process died; `error_type` and `message` as Lambda reports them."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(error_type, message)
        self.error_type = error_type
        self.message = message


class InvocationTimedOut(InvocationFailed):
    """The function's timeout passed; its environment was killed."""


class InvocationThrottled(InvocationFailed):
    """Refused before it started: the function's concurrency is used up (TooManyRequestsException)."""


class _HandlerError(msgspec.Struct):
    errorMessage: str = ""  # noqa: N815  the field's name in Lambda's error object
    errorType: str = ""  # noqa: N815


class _Answer(msgspec.Struct):
    result: msgspec.Raw
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    rss_kb: int = 0
    error: _HandlerError | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class _Invocation:
    __slots__ = ("event", "future", "over_cap", "queued_at", "request_id", "started_at")

    def __init__(self, event: bytes, request_id: str, future: asyncio.Future[bytes]) -> None:
        self.event = event
        self.over_cap = False
        self.request_id = request_id
        self.future = future
        self.queued_at = self.started_at = time.monotonic()


class _Environment(asyncio.Protocol):
    """The gateway's end of one environment: frames in and out, and what it is doing."""

    def __init__(self, pool: FunctionPool, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.ready = False
        self.invocation: _Invocation | None = None
        self.invocations = 0
        self.started_at = self.idle_since = time.monotonic()
        self.init_ms = 0.0
        self.transport: asyncio.Transport | None = None
        #: The end of INIT's time, then of the running invocation's.
        self.deadline: asyncio.TimerHandle | None = None
        self._pool = pool
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # made from a stream socket
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _ANSWER.size:
            (length,) = _ANSWER.unpack_from(self._buffer)
            if len(self._buffer) < _ANSWER.size + length:
                return
            answer = _decode_answer(memoryview(self._buffer)[_ANSWER.size : _ANSWER.size + length])
            result = bytes(answer.result)
            answer.result = msgspec.Raw(result)
            self._buffer = self._buffer[_ANSWER.size + length :]
            self._pool.answered(self, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.ended(self)

    def cancel_deadline(self) -> None:
        if self.deadline:
            self.deadline.cancel()
            self.deadline = None

    def send(self, invocation: _Invocation, timeout_seconds: float) -> None:
        self.invocation = invocation
        self.invocations += 1
        head = _REQUEST.pack(
            len(invocation.event), (time.time() + timeout_seconds) * 1000, invocation.request_id.encode()
        )
        assert self.transport  # an environment is used only after it has answered on it
        self.transport.write(head + invocation.event)


class _LogPipe(asyncio.Protocol):
    """What a function writes: counted, the last lines kept, written to a file if there is one."""

    def __init__(self, pool: FunctionPool) -> None:
        self._pool = pool
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pool.log_transports.add(transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.log_transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._pool.log_bytes += len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        self._pool.log_lines.extend(line.decode(errors="replace") for line in lines)
        self._pool.write_log(data)


class Concurrency:
    """How many invocations of an account are under way, and may be."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way = 0

    def take(self) -> bool:
        """One more, unless the limit is reached."""
        if self._under_way >= self._limit:
            return False
        self._under_way += 1
        return True

    def give_back(self, _: object = None) -> None:
        """One has ended."""
        self._under_way -= 1


class FunctionPool:
    """All environments of one function.

    `variables` is the environment its processes get besides what the runtime sets. Call `stop` at the end.
    """

    def __init__(
        self,
        name: str,
        function: Function,
        variables: Mapping[str, str],
        *,
        region: str,
        account_id: str,
        faults: Faults,
        account: Concurrency | None = None,
        starts: int = 1_000,
    ) -> None:
        self.name = name
        self.function = function
        self.log_bytes = 0
        self.log_lines: deque[str] = deque(maxlen=1000)
        self.log_transports: set[asyncio.BaseTransport] = set()
        self._ids = random.Random()  # noqa: S311  request ids, not secrets
        self._faults = faults
        self._rng = random.Random(faults.seed)  # noqa: S311  reproducible faults
        self._account = account or Concurrency(1_000)
        self._starts = TokenBucket(starts / 10, starts)
        self._variables = _runtime_variables(name, function, region, account_id) | dict(variables)
        self._environments: set[_Environment] = set()
        self._idle: list[_Environment] = []
        self._starting = 0
        self._busy = 0
        self._waiting: deque[_Invocation] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._stopped = False
        self._log_file: IO[bytes] | None = open(function.log_file, "ab", buffering=0) if function.log_file else None  # noqa: SIM115
        self._platform_log_bytes = 0
        self._invocations = self._cold_starts = self._started = self._killed = 0
        self._throttles = self._errors = self._timeouts = self._queued = 0
        self._init_ms = self._init_cpu_ms = self._boot_ms = self._wall_ms = self._cpu_ms = 0.0
        self._queue_ms = self._cold_wait_ms = self._max_rss_kb = 0.0
        self._wall_samples: deque[float] = deque(maxlen=_SAMPLES)
        self._cpu_samples: deque[float] = deque(maxlen=_SAMPLES)

    async def invoke(self, event: bytes) -> bytes:
        """Run the handler on `event` (JSON) and return what it returned (JSON).

        Cancelling the caller does not stop the handler, as on Lambda. Raises InvocationFailed, InvocationTimedOut or
        InvocationThrottled.
        """
        at_cap = self._busy + len(self._waiting) >= self.function.concurrency
        if self.function.throttle_at_cap and at_cap:
            self._refuse()
        if not self._idle and not at_cap and not self._starts.take():
            self._refuse()
        if not self._account.take():
            self._refuse()
        request_id = str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
        invocation = _Invocation(event, request_id, asyncio.get_running_loop().create_future())
        invocation.future.add_done_callback(self._account.give_back)
        if self._idle:
            self._dispatch(self._idle.pop(), invocation)
        else:
            invocation.over_cap = at_cap
            self._waiting.append(invocation)
            self._start_if_needed()
        return await invocation.future

    def _refuse(self) -> NoReturn:
        self._throttles += 1
        raise InvocationThrottled("TooManyRequestsException", "Rate Exceeded.")

    def kill_environment(self) -> bool:
        """Kill one environment, a busy one if there is any: its invocation fails. False if there is none."""
        busy_first = sorted(self._environments, key=lambda environment: environment.invocation is None)
        if not busy_first:
            return False
        self.ended(busy_first[0])
        return True

    @property
    def pids(self) -> list[int]:
        """Process ids of the living environments."""
        return [environment.process.pid for environment in self._environments]

    async def stop(self) -> None:
        """Kill every environment; what was running fails. Nothing can be invoked afterwards."""
        self._stopped = True
        if self._reaper:
            self._reaper.cancel()
        stopping = InvocationFailed("Runtime.ExitError", "the gateway is stopping")
        for environment in list(self._environments):
            self._end(environment, stopping)
        for invocation in self._waiting:
            _fail(invocation, stopping)
        self._waiting.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for transport in list(self.log_transports):
            transport.close()
        await asyncio.sleep(0)  # lets the transports close
        if self._log_file:
            self._log_file.close()

    # What environments report.

    def answered(self, environment: _Environment, answer: _Answer) -> None:
        """An environment is ready, or has finished an invocation."""
        self._max_rss_kb = max(self._max_rss_kb, answer.rss_kb)
        if not environment.ready:
            self._initialised(environment, answer)
            return
        invocation = self._finish(environment)
        assert invocation  # it answers only what it was sent
        self._count(environment, invocation, answer.wall_ms, answer.cpu_ms, answer.rss_kb)
        if answer.error:
            self._errors += 1
            _fail(invocation, InvocationFailed(answer.error.errorType, answer.error.errorMessage))
        elif not invocation.future.done():
            invocation.future.set_result(bytes(answer.result))
        self._release(environment)

    def ended(self, environment: _Environment) -> None:
        """An environment's process closed its end: it died, was killed, or could not load the handler."""
        if environment in self._environments:
            if environment.invocation or not environment.ready:
                self._errors += 1
            self._killed += 1
            self._end(environment, InvocationFailed("Runtime.ExitError", "Runtime exited without providing a reason"))

    def write_log(self, data: bytes) -> None:
        """Append to the log file, if there is one."""
        if self._log_file and not self._log_file.closed:
            self._log_file.write(data)

    # Inside.

    def _start_if_needed(self) -> None:
        while (
            not self._stopped
            and self._starting < len(self._waiting)
            and len(self._environments) < self.function.concurrency
        ):
            try:
                self._start()
            except OSError as exc:
                _fail(self._waiting.popleft(), InvocationFailed("Runtime.StartError", str(exc)))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        log_read, log_write = os.pipe()
        try:
            process = child_process.start(
                [sys.executable, "-P", _MAIN, str(theirs.fileno())],
                env=self._variables | {"AWS_LAMBDA_LOG_STREAM_NAME": f"{self.name}/[$LATEST]{self._started:032x}"},
                cwd=self.function.task_root or None,
                pass_fds=[theirs.fileno()],
                output=log_write,
            )
        except OSError:
            ours.close()
            os.close(log_read)
            raise
        finally:
            theirs.close()
            os.close(log_write)
        self._started += 1
        self._starting += 1
        environment = _Environment(self, process)
        self._environments.add(environment)
        self._background(self._attach(environment, ours, log_read))
        loop = asyncio.get_running_loop()
        environment.deadline = loop.call_later(INIT_TIMEOUT_SECONDS, self.ended, environment)
        if self._reaper is None:
            self._reaper = loop.call_later(self.function.idle_seconds / 4, self._reap_idle)

    async def _attach(self, environment: _Environment, ours: socket.socket, log_read: int) -> None:
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(log_read, "rb", buffering=0)
        await loop.connect_read_pipe(lambda: _LogPipe(self), pipe)
        ours.setblocking(False)
        await loop.create_connection(lambda: environment, sock=ours)
        if environment not in self._environments and environment.transport:
            environment.transport.abort()  # killed in the meantime

    def _initialised(self, environment: _Environment, answer: _Answer) -> None:
        if answer.error:
            return  # the process ends now, which is handled as any other end
        self._starting -= 1
        environment.ready = True
        environment.cancel_deadline()
        environment.init_ms = answer.wall_ms
        self._init_ms += answer.wall_ms
        self._init_cpu_ms += answer.cpu_ms
        self._boot_ms += (time.monotonic() - environment.started_at) * 1000
        self._release(environment)

    def _release(self, environment: _Environment) -> None:
        while self._waiting:
            invocation = self._waiting.popleft()
            if not invocation.future.done():
                self._dispatch(environment, invocation)
                return
        environment.idle_since = time.monotonic()
        self._idle.append(environment)
        if self.function.freeze:
            child_process.kill_group(environment.process, signal.SIGSTOP)

    def _dispatch(self, environment: _Environment, invocation: _Invocation) -> None:
        if self.function.freeze:
            child_process.kill_group(environment.process, signal.SIGCONT)
        self._invocations += 1
        self._busy += 1
        invocation.started_at = time.monotonic()
        waited_ms = (invocation.started_at - invocation.queued_at) * 1000
        if invocation.over_cap:
            self._queued += 1
            self._queue_ms += waited_ms
        else:
            self._cold_wait_ms += waited_ms
        if environment.invocations == 0:
            self._cold_starts += 1
        self._platform_log(f"START RequestId: {invocation.request_id} Version: $LATEST\n")
        timeout = self.function.timeout_seconds
        loop = asyncio.get_running_loop()
        environment.deadline = loop.call_later(timeout, self._timed_out, environment)
        if self._rng.random() < self._faults.invocation_killed:
            loop.call_later(self._rng.uniform(0, self._faults.killed_within_ms) / 1000, self.ended, environment)
        environment.send(invocation, timeout)

    def _finish(self, environment: _Environment) -> _Invocation | None:
        """Take back what an environment was working on."""
        environment.cancel_deadline()
        invocation, environment.invocation = environment.invocation, None
        if invocation:
            self._busy -= 1
        return invocation

    def _timed_out(self, environment: _Environment) -> None:
        self._timeouts += 1
        self._killed += 1
        seconds = self.function.timeout_seconds
        self._end(environment, InvocationTimedOut("Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds"))

    def _end(self, environment: _Environment, failure: InvocationFailed) -> None:
        """Kill an environment; what it was working on fails."""
        self._environments.discard(environment)
        if environment in self._idle:
            self._idle.remove(environment)
        if environment.transport:
            environment.transport.abort()
        child_process.kill_group(environment.process)
        self._background(_wait_for(environment.process))
        invocation = self._finish(environment)
        if invocation:
            # The process can no longer tell: all of the time it had, and no CPU time.
            self._count(environment, invocation, (time.monotonic() - invocation.started_at) * 1000, 0.0, 0)
            _fail(invocation, failure)
        if not environment.ready:
            self._starting -= 1
            if self._waiting:
                # A failed INIT takes the invocation that caused it along, or a broken import would start for ever.
                _fail(self._waiting.popleft(), failure)
        self._start_if_needed()

    def _reap_idle(self) -> None:
        now = time.monotonic()
        for environment in list(self._idle):
            if now - environment.idle_since >= self.function.idle_seconds:
                self._end(environment, InvocationFailed("Runtime.ExitError", "idle"))
        self._reaper = None
        if self._environments:
            loop = asyncio.get_running_loop()
            self._reaper = loop.call_later(self.function.idle_seconds / 4, self._reap_idle)

    def _background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(
        self, environment: _Environment, invocation: _Invocation, wall_ms: float, cpu_ms: float, rss_kb: int
    ) -> None:
        self._wall_ms += wall_ms
        self._cpu_ms += cpu_ms
        self._wall_samples.append(wall_ms)
        self._cpu_samples.append(cpu_ms)
        report = (
            f"END RequestId: {invocation.request_id}\n"
            f"REPORT RequestId: {invocation.request_id}\tDuration: {wall_ms:.2f} ms\t"
            f"Billed Duration: {int(wall_ms) + 1} ms\tMemory Size: {self.function.memory_mb} MB\t"
            f"Max Memory Used: {rss_kb >> 10} MB\t"
        )
        if environment.invocations == 1:
            report += f"Init Duration: {environment.init_ms:.2f} ms\t"
        self._platform_log(report + "\n")

    def _platform_log(self, text: str) -> None:
        self._platform_log_bytes += len(text)
        if self._log_file:
            self.write_log(text.encode())

    def usage(self) -> FunctionUsage:
        """Everything counted so far."""
        return FunctionUsage(
            memory_mb=self.function.memory_mb,
            invocations=self._invocations,
            invocations_running=self._busy,
            cold_starts=self._cold_starts,
            environments_started=self._started,
            environments_now=len(self._environments),
            environments_killed=self._killed,
            init_ms=self._init_ms,
            init_cpu_ms=self._init_cpu_ms,
            boot_ms=self._boot_ms,
            wall_ms=self._wall_ms,
            cpu_ms=self._cpu_ms,
            wall_ms_quantiles=quantiles(self._wall_samples),
            cpu_ms_quantiles=quantiles(self._cpu_samples),
            queue_ms=self._queue_ms,
            queued=self._queued,
            cold_wait_ms=self._cold_wait_ms,
            throttles=self._throttles,
            errors=self._errors,
            timeouts=self._timeouts,
            max_memory_mb=self._max_rss_kb / 1024,
            log_bytes=self.log_bytes,
            platform_log_bytes=self._platform_log_bytes,
        )


def _fail(invocation: _Invocation, failure: InvocationFailed) -> None:
    if not invocation.future.done():
        invocation.future.set_exception(failure)


async def _wait_for(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:  # noqa: ASYNC110  a killed process is gone within milliseconds
        await asyncio.sleep(0.005)


def _runtime_variables(name: str, function: Function, region: str, account_id: str) -> dict[str, str]:
    """Source: "Defined runtime environment variables", Lambda developer guide."""
    ours = [path for path in sys.path if os.path.isdir(path) and not path.startswith((sys.prefix, sys.base_prefix))]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join([function.task_root, *ours] if function.task_root else ours),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": function.handler,
        "_LOCAL_FUNCTION_ARN": f"arn:aws:lambda:{region}:{account_id}:function:{name}",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "LAMBDA_TASK_ROOT": function.task_root or os.getcwd(),
    }
