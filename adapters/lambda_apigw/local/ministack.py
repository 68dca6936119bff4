"""DynamoDB and SQS on the wire: MiniStack as a child process, empty at the start, gone at the end."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType

from adapters.lambda_apigw.local import child_process

_HEALTH_PATH = "/_localstack/health"


class MiniStackError(Exception):
    """MiniStack is not installed or did not start; the message is one line for the user."""


class MiniStack:
    """One server bound to 127.0.0.1. Keeps everything in memory and writes only into a directory it removes.

    Use it as an async context manager. It accepts any credentials, unless it is told to check signatures and IAM policies: then
    `test` with the secret `test` may do everything, and each function what its role allows.
    """

    def __init__(
        self, *, region: str = "ap-southeast-1", start_seconds: float = 20.0, checks_permissions: bool = False
    ) -> None:
        self._region = region
        self._checks_permissions = checks_permissions
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._port = 0

    @property
    def endpoint_url(self) -> str:
        """Where all its services listen."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process id, to measure what it uses."""
        assert self._process  # only while it runs
        return self._process.pid

    async def __aenter__(self) -> MiniStack:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and wait until it answers. Raises MiniStackError."""
        if importlib.util.find_spec("ministack") is None:
            raise MiniStackError("MiniStack is not installed: pip install ministack")
        self._directory = tempfile.mkdtemp(prefix="ministack-")
        self._port = _free_port()
        self._process = child_process.start(
            # MiniStack's own server takes as long for HTTP as for all else together; this one halves what a request costs
            [
                *(
                    sys.executable,
                    "-m",
                    "uvicorn",
                    "ministack.app:app",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(self._port),
                ),
                *("--http", "httptools", "--loop", "uvloop", "--ws", "websockets-sansio"),
                *("--no-access-log", "--log-level", "error", "--timeout-keep-alive", "75"),
            ],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": self._directory,
                "TMPDIR": self._directory,
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(self._port),
                "MINISTACK_REGION": self._region,
                "LOG_LEVEL": "ERROR",
                "AUTH": "true" if self._checks_permissions else "false",
                # Listeners on fixed ports that nobody asked for.
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
            },
            cwd=self._directory,
        )
        deadline = time.monotonic() + self._start_seconds
        while not await self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                await self.stop()
                raise MiniStackError(f"MiniStack did not start within {self._start_seconds:.0f} s")
            await asyncio.sleep(0.02)

    async def _is_healthy(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            writer.write(f"GET {_HEALTH_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            return b" 200" in (await reader.readline())[:12]
        except OSError:
            return False
        finally:
            writer.close()

    async def stop(self) -> None:
        """End it and remove what it wrote. May be called twice."""
        if self._process:
            # Asked politely it takes two seconds to end, and it has nothing to save: its data are removed below.
            child_process.kill_group(self._process)
            await asyncio.to_thread(self._process.wait)
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
