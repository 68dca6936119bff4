"""The parent of an instance: one listening socket a worker, the workers, the journal and, if wanted, a Redis.

It forks, watches and restarts, and does nothing else, so that it has no reason to fail. Each worker slot has a socket of its
own on the shared port (SO_REUSEPORT), which outlives the worker: connections that wait in its queue are served by the next one.
A worker that is silent for 5 s is killed. Sockets are balanced by the kernel, evenly enough (a factor of 1.06 over four
workers); one shared listener is not.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import secrets
import select
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO

import msgspec

from adapters.ec2_cluster import admin_server, journal, logs, redis_sync, worker
from adapters.ec2_cluster.config import ClusterSettings, SettingsError, without_password
from adapters.ec2_cluster.embedded import EmbeddedRedis, EmbeddedRedisError
from adapters.ec2_cluster.ledger import ledger_place
from adapters.ec2_cluster.ledger_sqlite import SqliteLedger
from adapters.ec2_cluster.metrics import EmfSettings, FigureFile, Figures

log = logging.getLogger(__name__)

_SILENT_SECONDS = 5.0
_STARTING_SECONDS = 20.0
_RESTART_PAUSE_SECONDS = 0.2
_STOOD_STILL_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_READY, _STARTING = b".", b"-"

_LONGEST_RESTART_PAUSE_SECONDS = 5.0
_SHORT_LIFE_SECONDS = 5.0
_ADMIN_PORT_OFFSET = 1000
_FIGURES_SECONDS = 1.0
_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Beat(Protocol):
    """A process says that it lives, and whether it is ready or still starting."""

    def __call__(self, ready: bool = True) -> None:
        """Say so."""


Life = Callable[[Beat], None]


class _Child:
    """A process of this instance: how to start it, and whether it lives. Heartbeats come through a pipe."""

    def __init__(self, name: str, life: Life) -> None:
        self.name = name
        self.pid = 0
        self.restarts = -1
        self._life = life
        self.due: float | None = None
        """When to start it again, after it has ended."""
        self._pipe = -1
        self._started_at = 0.0
        self._short_lives = 0
        self._heard_at = 0.0
        self._has_spoken = False

    def start(self) -> None:
        """Fork. The child never returns from here."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(parent, writing)
        os.close(writing)
        if self._pipe >= 0:
            os.close(self._pipe)
        self.pid, self._pipe, self._heard_at, self._has_spoken = pid, reading, time.monotonic(), False
        self._started_at, self.due = self._heard_at, None
        self.restarts += 1

    def ended(self) -> None:
        """It is gone. The first time it may start again at once; one that ends again and again waits longer and longer."""
        self.pid = 0
        now = time.monotonic()
        self._short_lives = self._short_lives + 1 if now - self._started_at < _SHORT_LIFE_SECONDS else 0
        pause = _RESTART_PAUSE_SECONDS * 2**self._short_lives if self._short_lives > 1 else 0.0
        self.due = now + min(pause, _LONGEST_RESTART_PAUSE_SECONDS)

    def _become(self, parent: int, writing: int) -> None:
        status = 1
        try:
            libc = ctypes.CDLL(None)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
            libc.prctl(_PR_SET_NAME, f"pw-{self.name}".encode()[:15])
            if os.getppid() != parent:
                os._exit(1)  # the parent died before we could ask to be told
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.setpgid(0, 0)  # a Ctrl-C goes to the supervisor, which decides
            self._life(lambda ready=True: _beat(writing, ready))
            status = 0
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            logging.getLogger(__name__).exception("%s failed", self.name)
        finally:
            os._exit(status)

    def is_silent(self) -> bool:
        """Whether it has not been heard for too long; a starting one may take longer."""
        try:
            while heard := os.read(self._pipe, 4096):
                self._heard_at = time.monotonic()
                self._has_spoken = self._has_spoken or _READY in heard
        except BlockingIOError:
            pass
        patience = _SILENT_SECONDS if self._has_spoken else _STARTING_SECONDS
        return time.monotonic() - self._heard_at > patience

    def heard(self) -> None:
        """Begin its silence anew."""
        self._heard_at = time.monotonic()

    @property
    def is_up(self) -> bool:
        """Whether it has said that it is ready since it was started."""
        return self._has_spoken

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.pid:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                self.pid = 0


def _beat(pipe: int, ready: bool) -> None:
    try:
        os.write(pipe, _READY if ready else _STARTING)
    except BrokenPipeError:
        os._exit(0)  # nobody watches over us any more


class Ready(msgspec.Struct, frozen=True):
    """What an instance tells whoever started it."""

    url: str
    port: int
    supervisor_pid: int
    redis_url: str
    redis_pid: int | None
    journal: str
    admin_url: str = ""


class Supervisor:
    """One instance. `run` returns when it has ended, with its exit code."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._instance = secrets.token_hex(3)
        self._children: list[_Child] = []
        self._redis: EmbeddedRedis | None = None
        self._ending: int | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._figures = tempfile.TemporaryDirectory(prefix="proctorwire-figures-")
        self._figures_at = 0.0

    def run(self, say: Callable[[Ready], None]) -> int:
        """Start everything, call `say` when connections are accepted, watch until told to end."""
        settings = self._settings
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)
        sockets: list[socket.socket] = []
        admin = None
        try:
            _check_emf(settings.emf)
            sockets = _listening(settings.host, settings.port, settings.workers)
            port = sockets[0].getsockname()[1]
            admin = _admin_socket(settings, port)
            settings = self._with_stores(settings)
            gc.collect()
            gc.freeze()  # what is loaded now is shared with the children and never garbage
            self._children = [
                _Child(f"worker-{slot}", self._worker_life(settings, slot, sock)) for slot, sock in enumerate(sockets)
            ]
            self._children.append(_Child("journal", self._journal_life(settings)))
            if admin is not None or settings.emf:
                self._children.append(_Child("admin", self._admin_life(settings, admin)))
            for child in self._children:
                child.start()
            self._watch_until(lambda: all(child.is_up for child in self._children))
            if self._ending is None:
                host = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104
                pid = None if self._redis is None else self._redis.pid
                scheme = "wss" if settings.tls_certificate else "ws"
                address = "" if admin is None else f"http://{_in_url(admin.getsockname()[0])}:{admin.getsockname()[1]}"
                url = f"{scheme}://{_in_url(host)}:{port}/ws"
                say(Ready(url, port, os.getpid(), settings.redis_url, pid, settings.journal, address))
            self._watch_until(lambda: False)
            return 0
        finally:
            self._end()
            for sock in (*sockets, *([] if admin is None else [admin])):
                sock.close()

    def _with_stores(self, settings: ClusterSettings) -> ClusterSettings:
        """Settings with a Redis and a journal file: given ones, or ours."""
        redis_url, folder = settings.redis_url, settings.data_dir
        if folder:
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SettingsError(f"data_dir {folder} can't be made: {error.strerror}") from error
        elif not redis_url or not settings.journal:
            self._folder = tempfile.TemporaryDirectory(prefix="proctorwire-")
            folder = self._folder.name
        if not redis_url:
            try:
                self._redis = EmbeddedRedis.start(Path(folder) / "redis")
            except EmbeddedRedisError as error:
                raise SettingsError(str(error)) from error
            redis_url = self._redis.url
        redis_url = _asked(redis_url)
        journal_path = settings.journal or str(Path(folder) / "journal.sqlite")
        try:
            if ledger_place(journal_path) is None:
                SqliteLedger(journal_path).close()
        except ValueError as error:
            raise SettingsError(f"journal is {journal_path!r}: {error}") from error
        except sqlite3.Error as error:
            raise SettingsError(
                f"journal {journal_path} can't be used: {error}; give a SQLite file, or a new one where it may be written"
            ) from error
        return msgspec.structs.replace(settings, redis_url=redis_url, journal=journal_path)

    def _worker_life(self, settings: ClusterSettings, slot: int, sock: socket.socket) -> Life:
        def life(heartbeat: Beat) -> None:
            # A name of its own for every start: what a dead worker owned must not look like ours.
            name = f"{self._instance}{slot}{secrets.token_hex(2)}"
            worker.run(name, settings, sock, heartbeat, FigureFile(self._figures.name, name))

        return life

    def _journal_life(self, settings: ClusterSettings) -> Life:
        def life(heartbeat: Beat) -> None:
            figures = FigureFile(self._figures.name, f"journal-{os.getpid()}")
            journal.run(settings.redis_url, settings.journal, self._instance, heartbeat, figures)

        return life

    def _admin_life(self, settings: ClusterSettings, sock: socket.socket | None) -> Life:
        def life(heartbeat: Beat) -> None:
            revoking = admin_server.Revoking(settings.redis_url, settings.admin_token) if settings.admin_token else None
            telling = EmfSettings(settings.emf, settings.emf_group, settings.emf_metrics)
            admin_server.run(sock, self._figures.name, telling, socket.gethostname(), heartbeat, revoking)

        return life

    def _told(self, number: int, _frame: object) -> None:
        if self._ending is not None:
            number = signal.SIGINT  # told twice: no more patience
        self._ending = number

    def _watch_until(self, condition: Callable[[], bool]) -> None:
        """Restart what dies, kill what is silent, until the condition holds or we are told to end."""
        looked_at = time.monotonic()
        while self._ending is None and not condition():
            select.select([], [], [], 0.05 if not all(c.is_up for c in self._children) else _RESTART_PAUSE_SECONDS)
            self._reap(restart=True)
            if time.monotonic() - looked_at > _STOOD_STILL_SECONDS:
                # We stood still ourselves, and so did they: a frozen machine. Nobody has been silent.
                for child in self._children:
                    child.heard()
            looked_at = time.monotonic()
            for child in self._children:
                if child.pid and child.is_silent():
                    log.error("%s has been silent for %.0f s: killed", child.name, _SILENT_SECONDS)
                    child.signal(signal.SIGKILL)
            if self._redis is not None and self._redis.poll() is not None:
                log.error("the embedded Redis ended; starting it again on its files")
                try:
                    self._redis = EmbeddedRedis.start(self._redis.directory)
                except EmbeddedRedisError as error:
                    log.error("the embedded Redis does not start: %s", error)
            self._write_figures()

    def _reap(self, *, restart: bool) -> None:
        for child in self._children:
            if not child.pid:
                continue
            done, status = os.waitpid(child.pid, os.WNOHANG)
            if not done:
                continue
            child.ended()
            if restart and self._ending is None:
                log.error("%s ended (%s); starting it again", child.name, os.waitstatus_to_exitcode(status))
        if restart and self._ending is None:
            for child in self._children:
                if child.due is not None and child.due <= time.monotonic():
                    child.start()

    def _write_figures(self) -> None:
        now = time.monotonic()
        if now - self._figures_at >= _FIGURES_SECONDS:
            self._figures_at = now
            restarts = sum(max(0, child.restarts) for child in self._children)
            FigureFile(self._figures.name, "supervisor").write(
                Figures("supervisor", counters={"restarts_total": restarts})
            )

    def _end(self) -> None:
        """Workers first (draining if told by SIGTERM), then the journal, which carries what they left, then Redis."""
        workers, carriers = self._children[: self._settings.workers], self._children[self._settings.workers :]
        patience = self._settings.drain_seconds + 5 if self._ending == signal.SIGTERM else 2.0
        self._end_children(workers, self._ending or signal.SIGINT, patience)
        self._end_children(carriers, signal.SIGINT, 2.0)
        if self._redis is not None:
            self._redis.stop()
        if self._folder is not None:
            self._folder.cleanup()
        self._figures.cleanup()

    def _end_children(self, children: list[_Child], number: int, patience: float) -> None:
        for child in children:
            child.signal(number)
        deadline = time.monotonic() + patience
        while any(child.pid for child in children):
            self._reap(restart=False)
            if self._ending == signal.SIGINT != number:  # told again, while draining
                number, deadline = signal.SIGINT, time.monotonic() + 2.0
                for child in children:
                    child.signal(number)
            if time.monotonic() > deadline:
                for child in children:
                    child.signal(signal.SIGKILL)
            time.sleep(0.01)


def _listening(host: str, port: int, count: int) -> list[socket.socket]:
    """Bound sockets on one port, one a worker. Raises `SettingsError` if the port is taken."""
    sockets: list[socket.socket] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Without SO_REUSEPORT first: with it, a second instance would share a port that somebody else uses by mistake.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
            sock.listen(1024)
            sockets.append(sock)
    except OSError as error:
        for sock in sockets:
            sock.close()
        if isinstance(error, socket.gaierror) or error.errno in _NOT_OURS:
            raise SettingsError(_not_ours("host", host, error)) from error
        raise SettingsError(f"port {port} on {host} can't be used: {error.strerror}; choose another --port") from error
    return sockets


def _not_ours(setting: str, host: str, error: OSError) -> str:
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return (
        f"{setting} {host} can't be used: {reason}; give an address of this machine, 127.0.0.1 for itself alone "
        "or 0.0.0.0 for all that reach it"
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _admin_socket(settings: ClusterSettings, port: int) -> socket.socket | None:
    """The socket of the admin port, if there is to be one. Raises `SettingsError` if the port is taken."""
    wanted = settings.admin_port
    if wanted is None:
        wanted = 0 if settings.port == 0 else port + _ADMIN_PORT_OFFSET
        if wanted > 65535:
            return None
    if wanted < 0:
        return None
    host = settings.admin_host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, wanted), backlog=16, family=family)
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno in _NOT_OURS:
            raise SettingsError(_not_ours("admin_host", host, error)) from error
        raise SettingsError(
            f"admin_port {wanted} on {host} can't be used: {os.strerror(error.errno or 0)}; choose another --admin-port, "
            "or -1 for none"
        ) from error


def _check_emf(path: str) -> None:
    """Later, a file that can't be written is logged and no reason to stop."""
    if path:
        try:
            with open(path, "ab"):
                return
        except OSError as error:
            raise SettingsError(
                f"emf {path} can't be written: {error.strerror}; give a file in a folder that is there"
            ) from error


def _asked(url: str) -> str:
    """The URL, saying what is behind it. Fails now and in one line, rather than later and in every worker: `SettingsError`."""
    try:
        return redis_sync.marked(url)
    except (*redis_sync.ERRORS, ValueError, TypeError, OSError) as error:
        raise SettingsError(
            f"redis_url {without_password(url)} can't be used: {str(error).rstrip('.')}{redis_sync.advice(error)}"
        ) from error


def serve(settings: ClusterSettings, out: TextIO = sys.stdout, *, as_json: bool = False) -> int:
    """Run one instance until it is told to end. Raises `SettingsError` for what the user can mend."""
    logs.configure(settings.log_level, settings.log_format)

    def say(ready: Ready) -> None:
        if as_json:
            print(msgspec.json.encode(ready).decode(), file=out, flush=True)
        else:
            print(f"listening on {ready.url} with {settings.workers} workers (Ctrl-C stops)", file=out, flush=True)
            if ready.admin_url:
                print(f"metrics on {ready.admin_url}/metrics", file=out, flush=True)

    return Supervisor(settings).run(say)
