"""The process that tells an instance's figures: `/metrics` on the admin port, and a line a minute for CloudWatch if asked for."""

from __future__ import annotations

import contextlib
import http.server
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from adapters.ec2_cluster.metrics import Figures, collect, emf, exposition

log = logging.getLogger(__name__)

_EMF_SECONDS = 60.0
_EMF_FILE_BYTES = 8 * 2**20


class _Handler(http.server.BaseHTTPRequestHandler):
    folder = ""
    timeout = 5  # of a request that does not come

    def do_GET(self) -> None:
        """`/metrics` and `/healthz`; nothing else is here."""
        if self.path == "/metrics":
            self._answer(200, exposition(collect(self.folder)), "text/plain; version=0.0.4; charset=utf-8")
        elif self.path == "/healthz":
            self._answer(200, "ok\n", "text/plain")
        else:
            self._answer(404, "Not Found\n", "text/plain")

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is no news."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked went away."""


def run(sock: socket.socket | None, folder: str, emf_file: str, instance: str, heartbeat: Callable[[], None]) -> None:
    """The life of the process: until SIGTERM or SIGINT."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    server = None
    if sock is not None:
        handler = type("Handler", (_Handler,), {"folder": folder})
        server = _Server(sock.getsockname(), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = sock
        threading.Thread(target=server.serve_forever, daemon=True).start()
    before, told_at = Figures("instance"), time.monotonic()
    while not ending.wait(0.5):
        heartbeat()
        if emf_file and time.monotonic() - told_at >= _EMF_SECONDS:
            told_at = time.monotonic()
            before = tell(emf_file, before, collect(folder), instance)
    if server is not None:
        server.shutdown()


def tell(emf_file: str, before: Figures, now: Figures, instance: str) -> Figures:
    """Append a line for CloudWatch's agent; a file that has grown large is put aside, one such is kept. Returns `now`."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(emf_file) > _EMF_FILE_BYTES:
            Path(emf_file).replace(emf_file + ".1")
    try:
        with open(emf_file, "ab") as file:
            file.write(emf(before, now, instance) + b"\n")
    except OSError as error:
        log.warning("emf %s can't be written: %s", emf_file, error.strerror)
    return now
