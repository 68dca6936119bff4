"""What AWS calls: an event in, the shell's answer out. One function of this module is one Lambda function, or one route of it.

Nothing here decides. The clients, tables and queues are put together once per execution environment, in INIT when Lambda runs
this; nothing that an invocation learns is kept but a copy of the exam, for two seconds. Logs carry ids, never names or tokens.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from aws_lambda_powertools import Logger

from adapters.lambda_apigw import config
from adapters.lambda_apigw.aws_http import DynamoDb, Session
from adapters.lambda_apigw.claims import principal_in
from adapters.lambda_apigw.flood import REVOKED_SECONDS, FloodGuard
from adapters.lambda_apigw.gateway import ApiGatewayConnections
from adapters.lambda_apigw.moves import DynamoMoves
from adapters.lambda_apigw.queue import SqsQueue, read_command, read_sweep, read_views
from adapters.lambda_apigw.rights import CONNECTIONS, DECIDES, TOKEN_KEYS, Right, may, queues, takes_from
from adapters.lambda_apigw.shell import Shell
from adapters.lambda_apigw.store import DynamoStore
from adapters.lambda_apigw.subscriptions import DynamoSubscriptions
from adapters.lambda_apigw.sweep import Sweep
from adapters.lambda_apigw.tokens import keys
from adapters.lambda_apigw.usage import UsageLog
from core.errors import CloseCode
from core.events import ConnectionLost
from core.identity import SUBPROTOCOL, Principal, verify
from core.revocation import Revocation
from core.routing import Source

Event = dict[str, Any]
logger = Logger(service="proctorwire", serialize_stacktrace=False)

_OK = {"statusCode": 200}
_SPARE_SECONDS = 0.5
"""Kept of an invocation's time, so that a slow call ends as an error of ours and not as Lambda's timeout."""


class Application:
    """The objects of one execution environment."""

    def __init__(self, settings: config.Settings, function: str) -> None:
        self.settings = settings
        self.session = session = Session(settings.credentials, settings.region)
        self.database = database = DynamoDb(session.client("dynamodb", settings.dynamodb_url))
        self.store = DynamoStore(
            database,
            settings.state_table,
            settings.journal_table,
            time.time,
            shards=settings.shards,
            retention_days=settings.retention_days,
        )
        self.subscriptions = DynamoSubscriptions(database, settings.state_table, time.time)
        self.moves = DynamoMoves(database, settings.state_table, time.time)
        self.connections = ApiGatewayConnections(session.client("execute-api", settings.management_url), self._dropped)
        queue = SqsQueue(
            session.client("sqs", settings.sqs_url),
            settings.sweep_queue_url,
            settings.command_queue_url,
            settings.views_queue_url,
        )
        self.shell = Shell(
            self.store,
            self.subscriptions,
            self.connections,
            queue,
            time.time,
            verify=self._verify,
            policy=settings.policy,
            exam_cache_seconds=settings.exam_cache_seconds,
            sweep_seconds=settings.sweep_seconds,
            coalesce=bool(settings.views_queue_url),
            direct_watchers=settings.direct_watchers,
            fan_out=self.connections.send_all,
            max_connection_seconds=settings.max_connection_seconds,
            move=self.moves.recent,
        )
        self.sweep = Sweep(self.shell, self.store, self.subscriptions, self.connections, time.time)
        self.guard = FloodGuard()
        self._usage = UsageLog(session.meter, function, settings.usage_every_seconds)

    @contextlib.contextmanager
    def invocation(self, context: Any, **ids: object) -> Iterator[None]:
        """Around the work of one invocation: its deadline before, what it used after. A failure is logged with `ids`."""
        self.session.begin(context.get_remaining_time_in_millis() / 1000 - _SPARE_SECONDS)
        try:
            yield
        except Exception:
            logger.exception("an invocation failed", extra={"request_id": context.aws_request_id, **ids})
            raise
        finally:
            self._usage.invoked(time.time())

    def source(self, request: Event) -> Source | None:
        """Who sent this. A proctor's token may have been refreshed since the authorizer saw it; a student's does not matter."""
        connection = request["connectionId"]
        principal = principal_in(request.get("authorizer") or {})
        if principal is None or principal.role != "student":
            principal = self.subscriptions.principal(connection) or principal
        return None if principal is None else Source(connection, request["connectedAt"] / 1000, principal)

    def end_flood(self, source: Source) -> None:
        """Refuse the bearer for a while, then hang up. Frames that were on their way meanwhile do it again, which is harmless."""
        logger.warning("a flood was ended", connection=source.connection, subject=source.principal.subject)
        bearer = source.principal
        self.subscriptions.revoke(Revocation(bearer.school, bearer.role, subject=bearer.subject), REVOKED_SECONDS)
        self.subscriptions.forget(source.connection)
        self.connections.close(source.connection, CloseCode.RATE, "too many frames; come back in a minute")

    def sample(self, request: Event, context: Any) -> None:
        """Write a line about one frame of so many, ids only.

        Powertools' own sampling turns DEBUG on for an environment and all that it does later; this draws for each frame. The line
        is INFO, because Lambda's own filter (`ApplicationLogLevel`) drops DEBUG.
        """
        if random.random() < self.settings.log_sample_rate:  # noqa: S311 - nothing to guess
            ids = _ids(request) | {"route": request["routeKey"], "request_id": context.aws_request_id}
            logger.info("a frame, sampled", extra=ids)

    def _verify(self, token: str) -> Principal:
        return verify(token, keys(self.settings), time.time(), self.settings.audience)

    def _dropped(self, connection: str, status: int) -> None:
        self.session.meter.call("frames_dropped")
        logger.warning("a frame was dropped", connection=connection, status=status)


@functools.cache
def application() -> Application:
    """The application of this execution environment, made once."""
    return Application(config.from_environment(), config.function_name())


@may(Right("RemembersTheConnection", ("dynamodb:Query", "dynamodb:UpdateItem"), ("StateTable",)))
def on_connect(event: Event, context: Any) -> Event:
    """`$connect`: the authorizer has admitted the client; remember who it is."""
    app, request = application(), event["requestContext"]
    with app.invocation(context, **_ids(request)):
        principal = principal_in(request.get("authorizer") or {})
        if principal is None:
            return {"statusCode": 401}
        if app.subscriptions.is_revoked(principal):
            return {"statusCode": 403}
        app.shell.connected(Source(request["connectionId"], request["connectedAt"] / 1000, principal))
    if SUBPROTOCOL in _header(event, "sec-websocket-protocol").replace(" ", "").split(","):
        return {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": SUBPROTOCOL}}
    return _OK


@may(*DECIDES, TOKEN_KEYS, queues("SweepQueue", "CommandQueue", "ViewsQueue"))
def on_message(event: Event, context: Any) -> Event:
    """A client's frame, on any route: the routes are there for metrics and throttles, and differ in nothing else."""
    app, request = application(), event["requestContext"]
    with app.invocation(context, **_ids(request), route=request["routeKey"]):
        source = app.source(request)
        if source is None:
            app.connections.close(request["connectionId"], CloseCode.TOKEN, "this connection is not known")
            return _OK
        app.sample(request, context)
        received_at = request["requestTimeEpoch"] / 1000
        if app.guard.exceeded(source.connection, received_at):
            app.end_flood(source)
        else:
            app.shell.received(_body(event), source, received_at)
    return _OK


@may(*DECIDES, queues("SweepQueue", "ViewsQueue"))
def on_disconnect(event: Event, context: Any) -> Event:
    """`$disconnect`, which may come late or never."""
    app, request = application(), event["requestContext"]
    with app.invocation(context, **_ids(request), code=request.get("disconnectStatusCode")):
        source = app.source(request)
        if source is not None:
            app.shell.disconnected(source, _lost(request, app.settings.max_connection_seconds))
    return _OK


@may(*DECIDES, queues("SweepQueue"), takes_from("SweepQueue"))
def on_sweep(event: Event, context: Any) -> Event:
    """Messages of the sweep queue. One that failed may come again: its ticket is used, so it ends there."""
    app = application()
    return _each_record(event, context, lambda body: app.sweep.sweep(read_sweep(body)))


@may(*DECIDES, queues("SweepQueue", "CommandQueue", "ViewsQueue"), takes_from("CommandQueue"))
def on_command(event: Event, context: Any) -> Event:
    """Messages of the command queue: parts of commands to many. One that failed comes again."""
    app = application()
    return _each_record(event, context, lambda body: app.shell.carry_out(read_command(body)))


@may(
    takes_from("ViewsQueue"),
    Right("WhoWatchesAndWhoIsGone", ("dynamodb:Query", "dynamodb:DeleteItem"), ("StateTable",)),
    CONNECTIONS._replace(on=("POST",)),
)
def on_views(event: Event, context: Any) -> Event:
    """A batch of the queue of views, collected for two seconds: published together. If it fails, all of it comes again."""
    app = application()
    with app.invocation(context):
        app.shell.publish([read_views(record["body"]) for record in event["Records"]])
    return {"batchItemFailures": []}


@may(
    Right("FindsLostSweeps", ("dynamodb:Query", "dynamodb:UpdateItem"), ("StateTable",)),
    queues("SweepQueue"),
)
def on_minute(event: Event, context: Any) -> None:
    """The rule of each minute: start lost chains of sweeps again."""
    app = application()
    with app.invocation(context):
        restarted = app.sweep.restart_lost()
        if restarted:
            logger.warning("lost sweeps were started again", shards=restarted)


def _each_record(event: Event, context: Any, work: Callable[[str], object]) -> Event:
    """Do each message of a batch; the answer names those that failed (`ReportBatchItemFailures`)."""
    app, failed = application(), []
    with app.invocation(context):
        for record in event["Records"]:
            try:
                work(record["body"])
            except Exception:
                logger.exception("a message failed", message_id=record["messageId"])
                failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}


def _lost(request: Event, max_connection_seconds: float) -> ConnectionLost:
    """Why a connection ended: 4000 is the script's goodbye, and at two hours API Gateway itself hangs up."""
    at = request["requestTimeEpoch"] / 1000
    age = at - request["connectedAt"] / 1000
    reason: Any = "dropped"
    if request.get("disconnectStatusCode") == CloseCode.LEAVE:
        reason = "left"
    elif age >= max_connection_seconds * 0.999:
        reason = "lost_by_us"
    return ConnectionLost(received_at=at, connection=request["connectionId"], reason=reason)


def _ids(request: Event) -> dict[str, object]:
    """What a log line is found by: the connection, and whose it is. Ids, never names."""
    claims = request.get("authorizer") or {}
    known = {name: claims[name] for name in ("school", "role", "sub") if name in claims}
    return {"connection": request["connectionId"], **known}


def _body(event: Event) -> str:
    body = event.get("body") or ""
    return base64.b64decode(body).decode(errors="replace") if event.get("isBase64Encoded") else body


def _header(event: Event, name: str) -> str:
    headers = event.get("headers") or {}
    return next((value for key, value in headers.items() if key.lower() == name), "")


if config.function_name():  # on Lambda: INIT has the whole CPU, and no client waits for it
    application()
