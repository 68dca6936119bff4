"""The settings of a cluster instance, read once: explicit value, else environment, else default."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from core.identity import MIN_SECRET_BYTES

PREFIX = "PROCTORWIRE_"


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it and the fix."""


class ClusterSettings(Struct, frozen=True, kw_only=True):
    """One instance of the cluster.

    `redis_url` empty: an embedded Redis, with its files in `data_dir` (empty: a temporary folder). `token_secrets` maps `kid` to
    HS256 secret; the key `""` is for tokens without `kid`. `journal` is where the journal is carried to: a SQLite file (empty: in
    the data folder), or `dynamodb:TABLE`. `port` 0: a free one. `tls_certificate` and `tls_key` are PEM files: with them, the port
    takes TLS only.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    redis_url: str = ""
    token_secrets: dict[str, str]
    transport: Literal["picows", "websockets"] = "picows"
    data_dir: str = ""
    journal: str = ""
    tick_seconds: float = 0.05
    drain_seconds: float = 20.0
    tls_certificate: str = ""
    tls_key: str = ""
    origins: tuple[str, ...] = ()
    log_level: str = "INFO"


def read_settings(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> ClusterSettings:
    """Settings from values given on the command line (None: not given) and `PROCTORWIRE_<NAME>` in the environment.

    Raises `SettingsError` naming the setting.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(ClusterSettings):
        name = field.name
        value = given.get(name)
        if value is None and name != "token_secrets":
            value = environment.get(PREFIX + name.upper())
        if value is not None:
            values[name] = value.split(",") if name == "origins" and isinstance(value, str) else value
    values["token_secrets"] = read_secrets(given.get("token_secret"), environment)
    try:
        settings = msgspec.convert(values, ClusterSettings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"setting {error}") from error
    if not 1 <= settings.workers <= 64:
        raise SettingsError(f"workers is {settings.workers}; it must be between 1 and 64")
    if not 0 <= settings.port <= 65535:
        raise SettingsError(f"port is {settings.port}; it must be between 0 and 65535")
    tls_context(settings)
    return settings


def tls_context(settings: ClusterSettings) -> ssl.SSLContext | None:
    """The TLS side of the sockets, or None without a certificate. Raises `SettingsError` if its files can't be used."""
    if not settings.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        files = f"tls_certificate {settings.tls_certificate} with tls_key {settings.tls_key or '(in the same file)'}"
        raise SettingsError(f"{files} can't be used: {error}") from error
    return context


def read_secrets(given: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Token secrets by `kid`: one secret, or `kid:secret,kid:secret` to have two while keys are changed.

    Raises `SettingsError` if there is none, or one is too short to be safe.
    """
    text = given if given is not None else environment.get(PREFIX + "TOKEN_SECRET", "")
    if not text:
        raise SettingsError(
            "no token secret: give --token-secret or PROCTORWIRE_TOKEN_SECRET (make one: "
            "python -c 'import secrets; print(secrets.token_hex(32))')"
        )
    found: dict[str, str] = {}
    for part in text.split(","):
        kid, colon, secret = part.partition(":")
        found[kid if colon else ""] = secret if colon else kid
    for kid, secret in found.items():
        if len(secret.encode()) < MIN_SECRET_BYTES:
            named = f" of kid {kid}" if kid else ""
            raise SettingsError(
                f"the token secret{named} is shorter than {MIN_SECRET_BYTES} bytes (RFC 7518 section 3.2)"
            )
    return found


def new_secret() -> str:
    """A fresh secret for tests and demonstrations."""
    return secrets.token_hex(32)
