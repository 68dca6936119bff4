"""The process that tells an instance's figures: `/metrics` on the admin port, and a line a minute for CloudWatch if asked for.

With an admin token it also takes revocations, for an LMS that ends a student's access: `GET`, `POST` and `DELETE /revocations`.
"""

from __future__ import annotations

import contextlib
import hmac
import http.server
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from adapters.ec2_cluster.admin import Admin, AdminError, connect
from adapters.ec2_cluster.metrics import EmfSettings, Figures, collect, emf, exposition
from core.identity import Role
from core.revocation import Revocation

log = logging.getLogger(__name__)

_EMF_SECONDS = 60.0
_EMF_FILE_BYTES = 8 * 2**20


_BODY_BYTES = 4 * 1024
_NAME = Meta(min_length=1, max_length=256)


class _Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: whose tokens count no more, and for how long. Without `subject`, everybody's of this role."""

    school: Annotated[str, _NAME]
    role: Role = "student"
    quiz_id: Annotated[str, Meta(max_length=256)] = ""
    subject: Annotated[str, Meta(max_length=256)] = ""
    hours: Annotated[float, Meta(gt=0, le=24 * 365)] = 24.0

    @property
    def revocation(self) -> Revocation:
        return Revocation(self.school, self.role, self.quiz_id, self.subject)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Revoking:
    """Revocations over HTTP: the Redis that they are written to, and the token that whoever asks must have."""

    def __init__(self, redis_url: str, token: str) -> None:
        self._redis_url = redis_url
        self._connected: Admin | None = None
        self._bearer = f"Bearer {token}".encode()

    def _admin(self) -> Admin:
        """Made when it is asked for, because a cluster's client is made of its nodes' answers."""
        if self._connected is None:
            self._connected = connect(self._redis_url, socket_timeout=2, socket_connect_timeout=2)
        return self._connected

    def answer(self, method: str, authorization: str, body: bytes) -> bytes:
        """The JSON that answers a request. Raises `_RefusedError`."""
        if not hmac.compare_digest(authorization.encode(), self._bearer):
            raise _RefusedError(401, "give the admin token: Authorization: Bearer TOKEN")
        try:
            if method in ("GET", "HEAD"):
                return msgspec.json.encode(self._admin().revocations())
            asked = msgspec.json.decode(body, type=_Asked)
            if method == "POST":
                self._admin().revoke(asked.revocation, asked.hours)
            elif not self._admin().allow(asked.revocation):
                raise _RefusedError(404, "there is no such revocation")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _RefusedError(400, f"the body is wrong: {error}") from error
        except AdminError as error:
            raise _RefusedError(503, str(error)) from error
        return msgspec.json.encode(asked.revocation)


class _Handler(http.server.BaseHTTPRequestHandler):
    folder = ""
    revoking: Revoking | None = None
    timeout = 5  # of a request that does not come
    server_version, sys_version = "proctorwire", ""
    error_message_format, error_content_type = "%(message)s\n", "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        """`/metrics` and `/healthz`; nothing else is here."""
        page = self.path.partition("?")[0]
        if page == "/metrics":
            self._answer(200, exposition(collect(self.folder)), "text/plain; version=0.0.4; charset=utf-8")
        elif page == "/healthz":
            self._answer(200, "ok\n", "text/plain")
        elif page == "/revocations":
            self._revoke()
        else:
            self._answer(404, "Not Found: there are /metrics, /healthz and /revocations\n", "text/plain")

    def do_HEAD(self) -> None:
        """As GET, without the page."""
        self.do_GET()

    def do_POST(self) -> None:
        """Revoke."""
        self._revoke()

    def do_DELETE(self) -> None:
        """Take a revocation back."""
        self._revoke()

    def _revoke(self) -> None:
        try:
            if self.path.partition("?")[0] != "/revocations":
                raise _RefusedError(404, "Not Found")
            if self.revoking is None:
                raise _RefusedError(403, "this instance has no admin_token: set PROCTORWIRE_ADMIN_TOKEN")
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > _BODY_BYTES:
                raise _RefusedError(413, f"send Content-Length, and at most {_BODY_BYTES} bytes")
            body = self.rfile.read(int(length))
            text = self.revoking.answer(self.command, self.headers.get("Authorization", ""), body).decode()
            self._answer(200, text + "\n", "application/json")
        except _RefusedError as refused:
            self._answer(refused.status, str(refused) + "\n", "text/plain; charset=utf-8")
        except OSError:
            raise  # who asked went away
        except Exception:
            log.exception("a request on the admin port failed")
            self._answer(500, "Internal Server Error: see the log\n", "text/plain; charset=utf-8")

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked went away."""


def run(
    sock: socket.socket | None,
    folder: str,
    telling: EmfSettings,
    instance: str,
    heartbeat: Callable[[], None],
    revoking: Revoking | None = None,
) -> None:
    """The life of the process: until SIGTERM or SIGINT."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    server = None
    if sock is not None:
        handler = type("Handler", (_Handler,), {"folder": folder, "revoking": revoking})
        server = _Server(sock.getsockname(), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = sock
        threading.Thread(target=server.serve_forever, daemon=True).start()
    before, told_at = collect(folder), time.monotonic()
    while not ending.wait(0.5):
        heartbeat()
        if telling.file and time.monotonic() - told_at >= _EMF_SECONDS:
            told_at = time.monotonic()
            before = tell(telling, before, collect(folder), instance)
    if server is not None:
        server.shutdown()


def tell(telling: EmfSettings, before: Figures, now: Figures, instance: str) -> Figures:
    """Append a line for CloudWatch's agent; a file that has grown large is put aside, one such is kept. Returns `now`."""
    file = Path(telling.file)
    try:
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_size > _EMF_FILE_BYTES:
                file.replace(telling.file + ".1")
        with file.open("ab") as lines:
            lines.write(emf(before, now, instance, telling) + b"\n")
    except OSError as error:
        log.warning("emf %s can't be written: %s", telling.file, error.strerror)
    return now
