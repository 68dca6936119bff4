"""What an emulated API Gateway serves and how strict it is: one frozen settings class, readable from a JSON file.

Defaults are the published AWS quotas ("Quotas for configuring and running a WebSocket API in API Gateway", "Lambda
quotas"), except the number of execution environments, which is small because they are real processes here. Tests scale
the quotas down instead of waiting for them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Function(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Lambda function: what a deployment template says about it.

    `handler` is an import string, `package.module:attribute`. In the values of `env` the text `{management_url}` is
    replaced by the address of the `@connections` endpoint, `{websocket_url}` by that of the socket and `{table_url}` by the
    faulty way to the table, all of which are known only after the start. A handler sees only `env` and the variables the
    Lambda runtime sets itself, never the environment of the gateway.
    """

    handler: str
    memory_mb: int = 256
    timeout_seconds: float = 10.0
    #: At most this many execution environments, so at most this many invocations at a time.
    concurrency: int = 8
    #: With every environment busy, False: wait for one (measured as `queue_ms`), because a laptop has few cores where
    #: AWS would have started another; True: refuse, as AWS does when the function's concurrency is used up.
    throttle_at_cap: bool = False
    #: Stop an environment's processes between invocations, as Lambda freezes them, so that work which a handler leaves
    #: behind shows: it goes on only with the next invocation.
    freeze: bool = False
    #: An environment unused for this long is ended. AWS publishes no figure.
    idle_seconds: float = 300.0
    env: dict[str, str] = {}
    #: Directory of the code, put first on the import path; empty: the import path of the gateway.
    task_root: str = ""
    #: Append what the function writes to stdout and stderr to this file, with Lambda's START, END and REPORT lines.
    log_file: str = ""


class Authorizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A REQUEST authorizer, run before `$connect`.

    `identity_sources` are expressions such as `route.request.querystring.token` or `route.request.header.Auth`; a
    request that lacks one of them is answered 401 without an invocation.
    """

    function: str
    identity_sources: tuple[str, ...] = ()


class Queue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An SQS event source mapping: the queue is polled and the function invoked with what it holds."""

    #: Queue URL as `CreateQueue` returns it; only its path is used, the server is `endpoint_url`.
    url: str
    function: str
    #: Where SQS listens, such as `http://127.0.0.1:4566`.
    endpoint_url: str
    #: More than ten need a batching window, as on AWS.
    batch_size: int = 10
    #: With a window, what arrives within it after a first message joins that one's batch (MaximumBatchingWindowInSeconds).
    batching_window_seconds: float = 0.0
    #: Long-poll time of one ReceiveMessage (0 to 20).
    wait_seconds: int = 20
    #: How long a received message stays hidden; 0: what the queue says.
    visibility_timeout_seconds: int = 0
    #: Concurrent pollers. AWS starts with five ("Understanding polling and batching" of the SQS event source).
    pollers: int = 1


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An EventBridge rule that invokes a function at a fixed rate, first one interval after the start."""

    name: str
    function: str
    interval_seconds: float = 60.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quotas of a WebSocket API; the defaults are AWS's."""

    frame_bytes: int = 32 * 1024
    message_bytes: int = 128 * 1024
    idle_seconds: float = 600.0
    duration_seconds: float = 7200.0
    integration_timeout_seconds: float = 29.0
    #: Account throttle, a token bucket shared by connects, messages and `@connections` calls.
    rate_per_second: float = 10_000.0
    burst: int = 5_000
    #: New connections a second, all WebSocket APIs of the account.
    connects_per_second: float = 500.0
    #: Invocations at the same time of all functions of the account ("Lambda quotas"); one more is refused.
    account_concurrency: int = 1_000
    #: New environments of one function in ten seconds ("Lambda function scaling"); what would need one more is refused.
    environments_per_ten_seconds: int = 1_000
    #: Bytes that may wait for one slow client before a POST to it is answered 429. AWS says that such a buffer exists
    #: (LimitExceededException), not how large it is.
    client_buffer_bytes: int = 1024 * 1024


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong on purpose, reproducibly for one seed."""

    #: Probability that a connection ends without its `$disconnect` (documented as best effort).
    disconnect_lost: float = 0.0
    #: Probability that a POST to an open connection is answered 429 (LimitExceededException).
    post_throttled: float = 0.0
    #: Probability that a batch of a queue is delivered twice (SQS delivers at least once).
    queue_duplicated: float = 0.0
    #: Probability that an invocation's environment is killed within `killed_within_ms` of its start.
    invocation_killed: float = 0.0
    killed_within_ms: float = 20.0
    #: Probability that a message reaches its function late, by up to `delayed_within_ms`, so that it is overtaken.
    message_delayed: float = 0.0
    delayed_within_ms: float = 200.0
    #: Probability that a request to the table at `table_endpoint_url` is refused as throttled.
    table_throttled: float = 0.0
    #: Probability that such a request is carried out and its answer lost.
    table_answer_lost: float = 0.0
    seed: int = 1


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one identity that may call `@connections`; every function gets it in its environment, as it would a role's."""

    access_key_id: str = "AKIDLOCAL"
    secret_access_key: str = "local-secret"  # noqa: S105  a test identity that opens nothing outside this process
    session_token: str = ""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One WebSocket API with its functions, queues and rules.

    `routes` maps a route key (`$connect`, `$disconnect`, `$default`, or a value of `$request.body.action`) to the name
    of a function in `functions`. A route in `route_responses` sends the body its function returns to the client; the
    others drop it.
    """

    functions: dict[str, Function]
    routes: dict[str, str]
    route_responses: tuple[str, ...] = ()
    authorizer: Authorizer | None = None
    queues: tuple[Queue, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    limits: Limits = Limits()
    faults: Faults = Faults()
    credentials: Credentials = Credentials()
    #: Where DynamoDB's API is served, for the faults of the table: functions reach it at `{table_url}`.
    table_endpoint_url: str = ""
    host: str = "127.0.0.1"
    #: 0: any free port.
    port: int = 0
    management_port: int = 0
    region: str = "ap-southeast-1"
    account_id: str = "000000000000"
    api_id: str = "localapi01"
    stage: str = "live"
    stage_variables: dict[str, str] = {}

    def __post_init__(self) -> None:
        named = [*self.routes.values(), *(q.function for q in self.queues), *(s.function for s in self.schedules)]
        if self.authorizer:
            named.append(self.authorizer.function)
        for name in named:
            if name not in self.functions:
                raise ValueError(f"no function {name!r} in the settings")
        for key in self.route_responses:
            if key not in self.routes:
                raise ValueError(f"route response for {key!r}, which is no route")

    @property
    def domain_name(self) -> str:
        """The API's host name, as it stands in every event."""
        return f"{self.api_id}.execute-api.{self.region}.amazonaws.com"


def load_settings(path: str | Path) -> GatewaySettings:
    """Settings from a JSON file whose keys are the field names above.

    Raises OSError if it cannot be read and msgspec.ValidationError, naming the field, if it is not valid.
    """
    return msgspec.json.decode(Path(path).read_bytes(), type=GatewaySettings)
