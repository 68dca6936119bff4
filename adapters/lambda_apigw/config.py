"""Settings of the Lambda functions: the only module of this side that reads the environment, once."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from adapters.lambda_apigw.aws_http import Credentials
from core.identity import MIN_SECRET_BYTES
from core.policy import Policy


class ConfigError(Exception):
    """A setting is missing or wrong; the message names the variable."""


class Settings(Struct, frozen=True, kw_only=True):
    """What a function needs to know. `from_environment` says which variable each comes from."""

    region: str
    credentials: Credentials
    state_table: str
    journal_table: str
    sweep_queue_url: str = ""
    command_queue_url: str = ""
    views_queue_url: str = ""
    management_url: str = ""
    dynamodb_url: str
    sqs_url: str
    token_secret: str = ""
    token_secret_parameter: str = ""
    audience: str = ""
    shards: int = 1
    retention_days: float = 180.0
    sweep_seconds: float = 10.0
    exam_cache_seconds: float = 2.0
    max_connection_seconds: float = 7_200.0
    direct_watchers: int = 3
    policy: Policy | None = None
    usage_every_seconds: float = 60.0
    log_sample_rate: float = 0.0
    school_keys: str = ""
    school_keys_parameter: str = ""
    socket_url: str = ""
    endpoints: str = ""


def from_environment(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises ConfigError.

    The names of AWS's own variables are AWS's. `PROCTORWIRE_USAGE_EVERY_SECONDS=0` writes a usage line for every invocation.
    Without `PROCTORWIRE_VIEWS_QUEUE_URL` every change is published at once, however many proctors watch; with it, what more than
    `PROCTORWIRE_DIRECT_WATCHERS` watch is published together, within two seconds (0: all).

    With `PROCTORWIRE_AUDIENCE` a token's `aud` must name it; without, tokens with an `aud` are refused.
    `PROCTORWIRE_LOG_SAMPLE_RATE` is the share of frames that get a log line, 0 to 1.
    """
    if environ.get("PROCTORWIRE_JWKS"):
        raise ConfigError(
            "PROCTORWIRE_JWKS: the functions check tokens of a secret only (HS256), public keys are the cluster's; unset it, and "
            "have the LMS sign with PROCTORWIRE_TOKEN_SECRET"
        )
    region = _needed(environ, "AWS_REGION")
    everywhere = environ.get("AWS_ENDPOINT_URL", "")
    policy = environ.get("PROCTORWIRE_POLICY")
    try:
        return Settings(
            region=region,
            credentials=Credentials(
                _needed(environ, "AWS_ACCESS_KEY_ID"),
                _needed(environ, "AWS_SECRET_ACCESS_KEY"),
                environ.get("AWS_SESSION_TOKEN", ""),
            ),
            state_table=_needed(environ, "PROCTORWIRE_STATE_TABLE"),
            journal_table=_needed(environ, "PROCTORWIRE_JOURNAL_TABLE"),
            sweep_queue_url=environ.get("PROCTORWIRE_SWEEP_QUEUE_URL", ""),
            command_queue_url=environ.get("PROCTORWIRE_COMMAND_QUEUE_URL", ""),
            views_queue_url=environ.get("PROCTORWIRE_VIEWS_QUEUE_URL", ""),
            management_url=environ.get("PROCTORWIRE_MANAGEMENT_URL", ""),
            dynamodb_url=environ.get("AWS_ENDPOINT_URL_DYNAMODB")
            or everywhere
            or f"https://dynamodb.{region}.amazonaws.com",
            sqs_url=environ.get("AWS_ENDPOINT_URL_SQS") or everywhere or f"https://sqs.{region}.amazonaws.com",
            token_secret=environ.get("PROCTORWIRE_TOKEN_SECRET", ""),
            token_secret_parameter=environ.get("PROCTORWIRE_TOKEN_SECRET_PARAMETER", ""),
            audience=environ.get("PROCTORWIRE_AUDIENCE", ""),
            shards=int(_number(environ, "PROCTORWIRE_SHARDS", 1, 1, 64)),
            retention_days=_number(environ, "PROCTORWIRE_RETENTION_DAYS", 180, 1, 3_650),
            sweep_seconds=_number(environ, "PROCTORWIRE_SWEEP_SECONDS", 10, 1, 60),
            exam_cache_seconds=_number(environ, "PROCTORWIRE_EXAM_CACHE_SECONDS", 2, 0, 10),
            max_connection_seconds=_number(environ, "PROCTORWIRE_MAX_CONNECTION_SECONDS", 7_200, 1, 7_200),
            direct_watchers=int(_number(environ, "PROCTORWIRE_DIRECT_WATCHERS", 3, 0, 100)),
            policy=msgspec.json.decode(policy, type=Policy) if policy else None,
            usage_every_seconds=_number(environ, "PROCTORWIRE_USAGE_EVERY_SECONDS", 60, 0, 3_600),
            log_sample_rate=_number(environ, "PROCTORWIRE_LOG_SAMPLE_RATE", 0, 0, 1),
            school_keys=environ.get("PROCTORWIRE_SCHOOL_KEYS", ""),
            school_keys_parameter=environ.get("PROCTORWIRE_SCHOOL_KEYS_PARAMETER", ""),
            socket_url=environ.get("PROCTORWIRE_SOCKET_URL", ""),
            endpoints=environ.get("PROCTORWIRE_ENDPOINTS", ""),
        )
    except msgspec.MsgspecError as exc:
        raise ConfigError(f"PROCTORWIRE_POLICY: {exc}") from exc


def function_name(environ: Mapping[str, str] = os.environ) -> str:
    """The name of the Lambda function that this process is an environment of; empty elsewhere."""
    return environ.get("AWS_LAMBDA_FUNCTION_NAME", "")


def token_keys(secret: str) -> dict[str, str]:
    """Keys by `kid`, from one secret, or from `kid:secret,kid2:secret2` (the first signs). Raises ConfigError.

    A secret shorter than the hash it keys is refused (RFC 7518 section 3.2).
    """
    keys: dict[str, str] = {}
    for part in secret.split(","):
        kid, colon, key = part.strip().partition(":")
        keys[kid if colon else ""] = key if colon else kid
    for kid, key in keys.items():
        if len(key.encode()) < MIN_SECRET_BYTES:
            raise ConfigError(f"the token secret {kid or '(without kid)'} is shorter than {MIN_SECRET_BYTES} bytes")
    return keys


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set")
    return value


def _number(environ: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is no number") from None
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value:g} is not between {low:g} and {high:g}")
    return value
