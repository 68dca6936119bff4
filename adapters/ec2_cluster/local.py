"""A whole cluster on this machine: one or several instances as real processes over one real Redis, for `compare` and tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from adapters.ec2_cluster.config import new_secret
from adapters.ec2_cluster.connection import Transport
from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.journal import open_ledger
from adapters.ec2_cluster.supervisor import Ready
from core.journal import Entry
from core.participant import ExamKey

_START_SECONDS = 30.0
_STOP_SECONDS = 2.5


class LocalClusterError(Exception):
    """An instance did not start; the message is what it said."""


class LocalCluster:
    """`instances` times `proctorwire serve`, sharing one Redis and one journal file. An async context manager."""

    def __init__(
        self,
        *,
        instances: int = 1,
        workers: int = 2,
        token_secret: str | None = None,
        transport: Transport = "picows",
        redis_url: str = "",
        ports: tuple[int, ...] = (),
        drain_seconds: float = 5.0,
        journal: str = "",
        environments: Sequence[Mapping[str, str]] = (),
        silent: bool = False,
    ) -> None:
        """Without `redis_url`, a Redis of its own; without `ports`, free ones; without `journal`, a file of its own.

        `environments` are further variables of each instance's environment, in order. `silent` drops what they log.
        """
        self.token_secret = token_secret or new_secret()
        self.ready: list[Ready] = []
        self._instances = instances
        self._workers = workers
        self._transport = transport
        self._redis_url = redis_url
        self._ports = ports
        self._drain_seconds = drain_seconds
        self._journal = journal
        self._environments = environments
        self._silent = silent
        self._redis: EmbeddedRedis | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def urls(self) -> list[str]:
        """Where each instance accepts WebSockets."""
        return [ready.url for ready in self.ready]

    @property
    def redis_url(self) -> str:
        """The Redis that the instances share."""
        return self._redis_url

    async def start(self) -> None:
        """Start Redis and the instances; return when all accept connections. Raises `LocalClusterError`."""
        self._folder = tempfile.TemporaryDirectory(prefix="proctorwire-")
        if not self._redis_url:
            self._redis = EmbeddedRedis.start(Path(self._folder.name) / "redis")
            self._redis_url = self._redis.url
        try:
            for number in range(self._instances):
                port = self._ports[number] if number < len(self._ports) else 0
                more = self._environments[number] if number < len(self._environments) else {}
                self.ready.append(await self._start_instance(port, more))
        except BaseException:
            await self.stop()
            raise

    @property
    def journal_place(self) -> str:
        """The journal that the instances share, as the `journal` setting names it."""
        assert self._folder is not None  # made by `start`
        return self._journal or str(Path(self._folder.name) / "journal.sqlite")

    async def _start_instance(self, port: int, more: Mapping[str, str]) -> Ready:
        environment = {
            **os.environ,
            "PROCTORWIRE_TOKEN_SECRET": self.token_secret,
            "PROCTORWIRE_REDIS_URL": self._redis_url,
            "PROCTORWIRE_WORKERS": str(self._workers),
            "PROCTORWIRE_PORT": str(port),
            "PROCTORWIRE_TRANSPORT": self._transport,
            "PROCTORWIRE_JOURNAL": self.journal_place,
            "PROCTORWIRE_DRAIN_SECONDS": str(self._drain_seconds),
            "PROCTORWIRE_LOG_LEVEL": "WARNING",
            "PROCTORWIRE_ADMIN_PORT": "-1",
            "PROCTORWIRE_DIE_WITH_PARENT": "1",
            **more,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "adapters.ec2_cluster",
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL if self._silent else None,
            start_new_session=True,
        )
        self._processes.append(process)
        assert process.stdout is not None  # asked for above
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise LocalClusterError(f"an instance was not ready within {_START_SECONDS:.0f} s") from error
        try:
            return msgspec.json.decode(line, type=Ready)
        except msgspec.DecodeError as error:
            raise LocalClusterError(line.decode(errors="replace").strip() or "an instance did not start") from error

    async def stop(self) -> None:
        """End everything within 3 s: what is decided is saved, nobody is drained."""
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()  # its children ask the kernel to be ended with it
                await process.wait()
        self._processes.clear()
        if self._redis is not None:
            self._redis.stop()
            self._redis = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def pids(self) -> dict[str, list[int]]:
        """The processes by role (`supervisor`, `worker`, `journal`, `redis`), as they are now."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for ready in self.ready:
            found["supervisor"].append(ready.supervisor_pid)
            for pid in _children_of(ready.supervisor_pid):
                name = _name_of(pid)
                if name.startswith("pw-"):
                    found[name.removeprefix("pw-").partition("-")[0]].append(pid)
        if self._redis is not None:
            found["redis"].append(self._redis.pid)
        return dict(found)

    def journal(self, exam: ExamKey) -> list[Entry]:
        """The entries of an exam that have been carried so far."""
        ledger = open_ledger(self.journal_place)
        try:
            return ledger.of_exam(exam)
        finally:
            ledger.close()

    async def __aenter__(self) -> LocalCluster:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
