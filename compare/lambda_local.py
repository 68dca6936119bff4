"""`proctorwire lambda local`: the serverless side on this machine, for a browser.

The emulated API Gateway with the real handlers, tables and queues, and beside it the HTTP API with the dashboard and the demo exam,
as the HTTP function would serve them. Nothing of it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlencode

import waitress
from msgspec import Struct

from adapters.lambda_apigw import config
from adapters.lambda_apigw.handler import Application
from adapters.lambda_apigw.http import web_app
from adapters.lambda_apigw.local.exam_stack import LocalServerless
from core.identity import Principal, issue

_TOKEN_SECONDS = 8 * 3_600.0
_INVOCATION_SECONDS = 29.0


class Served(Struct, frozen=True):
    """Where everything is. The links hold tokens; key and secret let their bearer in."""

    websocket_url: str
    management_url: str
    http_url: str
    dashboard: str
    exam: str
    token_secret: str
    school: str
    school_key: str
    quiz_id: str


class LocalOptions(Struct, frozen=True):
    """What the user may choose. Ports 0: free ones."""

    port: int = 8070
    http_port: int = 8071
    school: str = "demo"
    quiz_id: str = "math-1"
    token_secret: str = ""
    shards: int = 1
    direct_watchers: int = 3


async def serve(options: LocalOptions, tell: Callable[[Served], None]) -> None:
    """Run until SIGINT or SIGTERM; `tell` is called when clients can come.

    Raises StackError, MiniStackError, ConfigError, or OSError if a port is taken.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended as for Ctrl-C
    secret, school_key = options.token_secret or secrets.token_hex(32), secrets.token_urlsafe(32)
    async with LocalServerless(
        token_secret=secret, port=options.port, shards=options.shards, direct_watchers=options.direct_watchers
    ) as stack:
        environment = stack.environment | {"PROCTORWIRE_SCHOOL_KEYS": f"{options.school}:{school_key}"}
        with http_api(config.from_environment(environment), options.http_port) as http_url:

            def link(page: str, role: Literal["student", "proctor"], subject: str, attempt: str = "") -> str:
                expires_at = time.time() + _TOKEN_SECONDS
                who = Principal(role, options.school, subject, (options.quiz_id,), expires_at, attempt_id=attempt)
                kid, key = next(iter(config.token_keys(secret).items()))
                return f"{http_url}/{page}#{urlencode({'token': issue(who, key, kid), 'url': stack.websocket_url})}"

            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                # by the loop, which such a signal wakes up: one that came just before it began to wait could be missed
                loop.add_signal_handler(number, ended.set)
            tell(
                Served(
                    stack.websocket_url,
                    stack.management_url,
                    http_url,
                    link("dashboard", "proctor", "proctor"),
                    link("exam", "student", "you", "attempt-1"),
                    secret,
                    options.school,
                    school_key,
                    options.quiz_id,
                )
            )
            await ended.wait()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)  # who asks again does not want to wait


@contextlib.contextmanager
def http_api(settings: config.Settings, port: int) -> Iterator[str]:
    """The HTTP API in a thread; its address. One request at a time, as in an execution environment. Raises OSError."""
    app = Application(settings, "http")
    wsgi = web_app(app)

    def request(environ: object, start_response: object) -> object:
        app.session.begin(_INVOCATION_SECONDS)
        return wsgi(environ, start_response)  # type: ignore[arg-type]

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # one thread for one browser: a second request waits
    server = waitress.create_server(request, host="127.0.0.1", port=port, threads=1, ident=None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.trigger.pull_trigger(server.close)  # in its own loop, which would else wait for what is gone
        thread.join(2)
        app.session.close()
