"""A fleet of instances on one machine: health checks, a scale-out, and a scale-in that nobody notices.

Each instance is the real server, in a network namespace of its own if that is allowed (root), else on a loopback address of its
own. In front of them stands a TCP balancer that does what a Network Load Balancer does here: asks /readyz, sends new connections
to healthy targets, and keeps the connections of one that leaves. An instance that must go is drained by the very code that its unit
runs, from the metadata that it reads to the lifecycle action that it completes; only the waits are shorter.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from adapters.ec2_cluster.config import new_secret
from adapters.ec2_cluster.embedded import EmbeddedRedis, EmbeddedRedisError
from core.identity import SUBPROTOCOL, Principal, issue
from deploy.ec2_cluster.instance.drain import Drain, InstanceMetadata, must_go

Say = Callable[[str], None]

SCHOOL, QUIZ = "rehearsal", "fleet-1"
_PORT = 8080
_START_SECONDS = 30.0
_WAIT_SECONDS = 40.0
_DRAIN_SECONDS = 2.0
_CHECK_SECONDS = 0.2
_REPORT_SECONDS = 0.5
_LOOK_SECONDS = 0.1
_QUIET = frozenset(("active", "away", "not_joined"))
"""Labels that alarm no proctor."""


class FleetError(Exception):
    """Something did not go as it should; the message is one line."""


# --- where instances stand ------------------------------------------------------------------------------------------------


class Loopback:
    """Addresses of this machine: no isolation, and no rights needed."""

    name = "loopback addresses (network namespaces need root)"

    def place(self, number: int) -> tuple[str, list[str]]:
        """The address of an instance, and what stands before its command."""
        return f"127.77.{os.getpid() % 250}.{10 + number}", []

    def close(self) -> None:
        """Nothing was made."""


class Namespaces:
    """A network namespace for each instance, on a bridge of this machine."""

    name = "network namespaces"

    def __init__(self) -> None:
        mark = secrets.token_hex(2)
        self._bridge, self._prefix = f"pwbr{mark}", f"pw{mark}"
        self._net = f"10.231.{secrets.randbelow(250)}"
        self._made: list[list[str]] = []
        try:
            self._make(["link", "add", self._bridge, "type", "bridge"], ["link", "del", self._bridge])
            _ip("addr", "add", f"{self._net}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
        except FleetError:
            self.close()
            raise

    def place(self, number: int) -> tuple[str, list[str]]:
        """See `Loopback`."""
        space, outside, inside = f"{self._prefix}-{number}", f"{self._prefix}o{number}", f"{self._prefix}i{number}"
        address = f"{self._net}.{10 + number}"
        self._make(["netns", "add", space], ["netns", "del", space])
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", outside, "master", self._bridge, "up")
        _ip("link", "set", inside, "netns", space)
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", inside)
        for device in (inside, "lo"):
            _ip("-n", space, "link", "set", device, "up")
        return address, ["ip", "netns", "exec", space]

    def close(self) -> None:
        """Take everything away."""
        for undo in reversed(self._made):
            with contextlib.suppress(FleetError):
                _ip(*undo)
        self._made.clear()

    def _make(self, do: list[str], undo: list[str]) -> None:
        _ip(*do)
        self._made.append(undo)


def _ip(*arguments: str) -> None:
    try:
        ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise FleetError(f"no ip command: {error}") from error
    if ran.returncode:
        raise FleetError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")


def network(*, isolated: bool | None = None) -> Namespaces | Loopback:
    """Namespaces where they are allowed; `isolated` insists, or does without. Raises FleetError."""
    if isolated is False:
        return Loopback()
    try:
        return Namespaces()
    except FleetError:
        if isolated:
            raise
        return Loopback()


# --- the balancer ---------------------------------------------------------------------------------------------------------


class _Target:
    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.flows = 0
        self.good = 0
        self.bad = 0
        self.is_healthy = False
        self.is_leaving = False

    def checked(self, is_ready: bool) -> None:
        """Two good answers make it healthy, three bad ones unhealthy, as in the template."""
        self.good, self.bad = (self.good + 1, 0) if is_ready else (0, self.bad + 1)
        if self.good >= 2:
            self.is_healthy = True
        elif self.bad >= 3:
            self.is_healthy = False


class Balancer:
    """TCP connections to healthy targets in turn. An async context manager."""

    def __init__(self) -> None:
        self.targets: dict[str, _Target] = {}
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._spawn(self._check_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None  # made at entry
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server is not None  # made at entry
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    def register(self, name: str, address: str) -> None:
        """A target that gets connections when it is healthy."""
        self.targets[name] = _Target(name, address)

    def healthy(self) -> list[str]:
        """Targets that get new connections."""
        return [name for name, target in self.targets.items() if target.is_healthy and not target.is_leaving]

    # What Drain asks of Elastic Load Balancing; called from its thread.

    def deregister_targets(self, TargetGroupArn: str, Targets: list[dict[str, str]]) -> None:  # noqa: N803  AWS's names
        """No new connections to these."""
        for target in Targets:
            self.targets[target["Id"]].is_leaving = True

    def describe_target_health(self, TargetGroupArn: str, Targets: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        """The state of one."""
        state = "draining" if self.targets[Targets[0]["Id"]].is_leaving else "healthy"
        return {"TargetHealthDescriptions": [{"TargetHealth": {"State": state}}]}

    async def _check_for_ever(self) -> None:
        while True:
            for target in list(self.targets.values()):
                target.checked(await _is_ready(target.address))
            await asyncio.sleep(_CHECK_SECONDS)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        healthy = self.healthy()
        if not healthy:
            writer.close()
            return
        target = self.targets[healthy[next(self._turn) % len(healthy)]]
        try:
            inner_reader, inner_writer = await asyncio.open_connection(target.address, _PORT)
        except OSError:
            writer.close()
            return
        target.flows += 1
        self._spawn(self._carry(target, (reader, inner_writer), (inner_reader, writer)))

    async def _carry(self, target: _Target, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        try:
            done, rest = await asyncio.wait(
                [asyncio.create_task(_pump(*way)) for way in ways], return_when=asyncio.FIRST_COMPLETED
            )
            for task in rest:
                task.cancel()
            await asyncio.gather(*done, *rest, return_exceptions=True)
        finally:
            target.flows -= 1
            for _, writer in ways:
                writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _is_ready(address: str) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(address, _PORT)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode())
                return b" 200" in (await reader.readline())[:12]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


# --- instances ------------------------------------------------------------------------------------------------------------


class _Metadata(http.server.BaseHTTPRequestHandler):
    """An instance's metadata service; `state` is what Auto Scaling wants of it."""

    state = "InService"

    def do_PUT(self) -> None:
        self._answer(200, "token")

    def do_GET(self) -> None:
        if self.path.endswith("autoscaling/target-lifecycle-state"):
            self._answer(200, type(self).state)
        else:
            self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Instance:
    """One server, its metadata, and what its drain unit does."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, server_pid: int, balancer: Balancer) -> None:
        self.name = name
        self.completed = threading.Event()
        self._process = process
        self._server_pid = server_pid
        self._balancer = balancer
        self._loop = asyncio.get_running_loop()
        self._handler: type[_Metadata] = type("Metadata", (_Metadata,), {})
        self._metadata = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        self._serving = threading.Thread(target=self._metadata.serve_forever, args=(0.05,), daemon=True)
        self._serving.start()
        self._over = threading.Event()
        self._watching = asyncio.create_task(asyncio.to_thread(self._watch))

    def must_go(self) -> None:
        """Auto Scaling has decided to terminate it."""
        self._handler.state = "Terminated"

    async def gone(self) -> int:
        """Wait until it has drained; the exit code of its server."""
        async with asyncio.timeout(_WAIT_SECONDS):
            await self._watching
            return await self._process.wait()

    async def kill(self) -> None:
        """End whatever is left."""
        self._over.set()
        if self._process.returncode is None:
            os.kill(self._server_pid, signal.SIGINT)
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._watching
        self._metadata.shutdown()
        self._metadata.server_close()

    def complete_lifecycle_action(self, **_: Any) -> None:
        """What Drain asks of Auto Scaling."""
        self.completed.set()

    def _watch(self) -> None:
        """As the drain unit does: look, and when it is time, drain."""
        metadata = InstanceMetadata(f"http://127.0.0.1:{self._metadata.server_port}/latest")
        while not self._over.wait(_LOOK_SECONDS):
            if must_go(metadata):
                deployment = {"socket_targets": "sockets", "web_targets": "sockets", "group": "fleet", "hook": "drain"}
                Drain(
                    deployment,
                    self.name,
                    self._balancer,
                    self,
                    self._stop,
                    sleep=lambda seconds: time.sleep(min(seconds, 0.3)),
                ).run()
                return

    def _stop(self) -> None:
        os.kill(self._server_pid, signal.SIGTERM)
        asyncio.run_coroutine_threadsafe(self._process.wait(), self._loop).result(_WAIT_SECONDS)


# --- clients --------------------------------------------------------------------------------------------------------------


class _Client:
    """Keeps a connection: moves when it is told to, comes back when it is cut off."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self.moves = 0
        self.cuts = 0
        self._move_at = float("inf")

    async def live(self) -> None:
        """Until cancelled."""
        socket = await self._connect()
        while True:
            try:
                await self._talk(socket)
                following = await self._connect()  # the new one first: nobody shall see a gap
                await self._begin(following)
                await socket.close()
                self.moves += 1
            except websockets.ConnectionClosed:
                self.cuts += 1
                following = await self._connect()
            self._move_at = float("inf")
            socket = following

    async def _connect(self) -> ClientConnection:
        while True:
            with contextlib.suppress(OSError, websockets.InvalidHandshake):
                return await connect(
                    self._url, subprotocols=[websockets.Subprotocol(p) for p in (SUBPROTOCOL, f"bearer.{self._token}")]
                )
            await asyncio.sleep(0.1)

    async def _talk(self, socket: ClientConnection) -> None:
        """Until it is time to move. Raises ConnectionClosed."""
        await self._begin(socket)
        while (now := time.monotonic()) < self._move_at:
            with contextlib.suppress(TimeoutError):
                frame = json.loads(await asyncio.wait_for(socket.recv(), min(self._pause(now), self._move_at - now)))
                if frame["action"] == "reconnect":
                    self._move_at = time.monotonic() + frame["data"]["after_ms"] / 1000
                else:
                    self._received(frame["action"], frame["data"])
            await self._tick(socket)

    async def _send(self, socket: ClientConnection, action: str, **data: Any) -> None:
        await socket.send(json.dumps({"action": action, "data": data}))

    async def _begin(self, socket: ClientConnection) -> None:
        """What is said first on a new connection."""

    def _pause(self, now: float) -> float:
        return 1.0

    async def _tick(self, socket: ClientConnection) -> None:
        """What is said now and then."""

    def _received(self, action: str, data: dict[str, Any]) -> None:
        """What was heard."""


class _Student(_Client):
    """Reports twice a second, and sends a report again until it is acked."""

    def __init__(self, url: str, token: str, student: str) -> None:
        super().__init__(url, token)
        self.student = student
        self.seq = 1
        self.acked = 0
        self._sent_at = 0.0

    async def _begin(self, socket: ClientConnection) -> None:
        self._sent_at = time.monotonic()
        who = {"quiz_id": QUIZ, "quiz_attempt_id": "a", "student_id": self.student, "tab_id": f"tab-{self.student}"}
        await self._send(
            socket, "lmsQuizMonitoringStudent", **who, seq=self.seq, user_status="active", question_answered=self.seq
        )

    def _pause(self, now: float) -> float:
        return max(0.01, self._sent_at + _REPORT_SECONDS - now)

    async def _tick(self, socket: ClientConnection) -> None:
        if self.acked == self.seq and time.monotonic() >= self._sent_at + _REPORT_SECONDS:
            self.seq += 1
            await self._begin(socket)

    def _received(self, action: str, data: dict[str, Any]) -> None:
        if action == "ack":
            self.acked = max(self.acked, data.get("seq", 0))


class _Proctor(_Client):
    """Watches the exam, and remembers every label that it has seen."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self.views: dict[str, dict[str, Any]] = {}
        self.alarms: list[tuple[str, str]] = []

    async def _begin(self, socket: ClientConnection) -> None:
        await self._send(socket, "lmsQuizMonitoringProctor", quiz_id=QUIZ)

    def _received(self, action: str, data: dict[str, Any]) -> None:
        for view in data.get("participants") or () if action.startswith("lmsQuizMonitoring") else ():
            known = self.views.get(view["student_id"])
            if known is None or view["version"] > known["version"]:
                self.views[view["student_id"]] = view
                if view["label"] not in _QUIET:
                    self.alarms.append((view["student_id"], view["label"]))


# --- the play -------------------------------------------------------------------------------------------------------------


def rehearse_fleet(say: Say, *, students: int = 20, isolated: bool | None = None) -> None:
    """Play a fleet's day through. Raises FleetError."""
    place = network(isolated=isolated)
    try:
        asyncio.run(_Fleet(say, place, students).run())
    finally:
        place.close()


class _Fleet:
    def __init__(self, say: Say, place: Namespaces | Loopback, students: int) -> None:
        self._began = time.monotonic()
        self._say = say
        self._place = place
        self._students = students
        self._secret = new_secret()
        self._instances: dict[str, _Instance] = {}
        self._balancer = Balancer()

    async def run(self) -> None:
        self._tell(f"instances in {self._place.name}")
        with tempfile.TemporaryDirectory(prefix="proctorwire-fleet-") as folder, _redis(Path(folder)) as redis_url:
            async with self._balancer:
                try:
                    await self._play(folder, redis_url)
                finally:
                    for instance in self._instances.values():
                        await instance.kill()

    async def _play(self, folder: str, redis_url: str) -> None:
        for name in ("a", "b"):
            await self._start(name, folder, redis_url)
        self._tell("health check: both instances are healthy")
        async with self._clients() as (students, proctor):
            await self._until(lambda: len(proctor.views) == len(students), "proctor who sees all students")
            flows = {name: target.flows for name, target in self._balancer.targets.items()}
            if not all(flows.values()):
                raise FleetError(f"the balancer did not spread the connections: {flows}")
            self._tell(f"{len(students)} students report and are seen; connections: {flows}")

            await self._start("c", folder, redis_url)
            self._tell("scale-out: the third instance is healthy and takes connections")

            began = time.monotonic()
            self._instances["b"].must_go()
            code = await self._instances["b"].gone()
            if code != 0 or not self._instances["b"].completed.is_set():
                raise FleetError(f"the drained server ended with {code}, or its lifecycle action was not completed")
            marks = {student.student: student.seq for student in students}
            await self._until(
                lambda: all(s.acked > marks[s.student] for s in students), "ack of a later report for every student"
            )
            seen = {name: target.flows for name, target in self._balancer.targets.items()}
            moved, cut = sum(s.moves for s in students), sum(s.cuts for s in students)
            took = f"drained in {time.monotonic() - began:.1f} s"
            self._tell(f"scale-in: {took}; {moved} students moved, {cut} were cut off; connections: {seen}")
            if seen["b"]:
                raise FleetError(f"{seen['b']} connections are still on the instance that has gone")
            if cut or not moved:
                raise FleetError(f"{cut} students were cut off and {moved} moved; all should have been told to move")
            if proctor.alarms:
                raise FleetError(f"the proctor was shown {proctor.alarms[:3]} for a planned move")
            self._tell("the proctor saw nobody reconnect or go offline; every report was acked")

    async def _start(self, name: str, folder: str, redis_url: str) -> None:
        address, prefix = self._place.place(len(self._instances))
        environment = {
            **os.environ,
            "PROCTORWIRE_TOKEN_SECRET": self._secret,
            "PROCTORWIRE_REDIS_URL": redis_url,
            "PROCTORWIRE_HOST": address,
            "PROCTORWIRE_PORT": str(_PORT),
            "PROCTORWIRE_ADMIN_PORT": "0",  # without namespaces they share the address of the loopback
            "PROCTORWIRE_WORKERS": "1",
            "PROCTORWIRE_JOURNAL": f"{folder}/journal.sqlite",
            "PROCTORWIRE_DRAIN_SECONDS": str(_DRAIN_SECONDS),
            "PROCTORWIRE_LOG_LEVEL": "ERROR",
            "PROCTORWIRE_DIE_WITH_PARENT": "1",
        }
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "adapters.ec2_cluster"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None  # asked for above
        line = b""
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
            ready = json.loads(line)
        except (TimeoutError, ValueError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            said = line.decode(errors="replace").strip() or f"nothing was said within {_START_SECONDS:.0f} s"
            raise FleetError(f"instance {name} did not start: {said}") from error
        self._instances[name] = _Instance(name, process, ready["supervisor_pid"], self._balancer)
        self._balancer.register(name, address)
        await self._until(lambda: name in self._balancer.healthy(), f"healthy instance {name}")

    @contextlib.asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple[list[_Student], _Proctor]]:
        names = [f"s{number}" for number in range(self._students)]
        students = [_Student(self._balancer.url, self._token("student", name), name) for name in names]
        proctor = _Proctor(self._balancer.url, self._token("proctor", "p1"))
        tasks = [asyncio.create_task(client.live()) for client in (*students, proctor)]
        try:
            yield students, proctor
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _token(self, role: Any, subject: str) -> str:
        attempt = "a" if role == "student" else ""
        return issue(Principal(role, SCHOOL, subject, (QUIZ,), time.time() + 3600, attempt_id=attempt), self._secret)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise FleetError(f"no {what} within {_WAIT_SECONDS:.0f} s")
            await asyncio.sleep(0.05)

    def _tell(self, line: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  fleet: {line}")


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """The cache of the fleet. It is reached through a file, which namespaces of the network do not part."""
    try:
        with EmbeddedRedis.start(folder / "redis") as server:
            yield server.url
    except EmbeddedRedisError as error:
        raise FleetError(str(error)) from error
