"""The settings of a cluster instance, read once: explicit value, else environment, else default."""

from __future__ import annotations

import difflib
import os
import re
import secrets
import ssl
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from adapters.ec2_cluster.metrics import is_emf_name
from core.errors import TokenRejected
from core.identity import MIN_SECRET_BYTES, public_keys

PREFIX = "PROCTORWIRE_"


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it and the fix."""


class ClusterSettings(Struct, frozen=True, kw_only=True):
    """One instance of the cluster.

    `redis_url` empty: an embedded Redis, with its files in `data_dir` (empty: a temporary folder). `token_secrets` maps `kid` to
    HS256 secret; the key `""` is for tokens without `kid`. `jwks` is a file or an https:// URL with further, public keys. With an
    `audience`, a token's `aud` must name it. `journal` is where the journal is carried to: a SQLite file (empty: in the data
    folder), or `dynamodb:TABLE`. `port` 0: a free one. `tls_certificate` and `tls_key` are PEM files: with them, the
    port takes TLS only. `admin_port` is that of metrics: 0 a free one, -1 none, and without a word the port of the sockets and
    1000; with an `admin_token`, revocations can be made there. `emf` is a file for CloudWatch's embedded metric format;
    `emf_group` and `emf_metrics` are explained at `metrics.EmfSettings`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    redis_url: str = ""
    token_secrets: dict[str, str]
    jwks: str = ""
    audience: str = ""
    transport: Literal["picows", "websockets"] = "picows"
    data_dir: str = ""
    journal: str = ""
    tick_seconds: float = 0.05
    drain_seconds: float = 20.0
    tls_certificate: str = ""
    tls_key: str = ""
    origins: tuple[str, ...] = ()
    messages_per_second: float = 20.0
    message_burst: int = 60
    connections_per_address: int = 20_000
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    admin_token: str = ""
    emf: str = ""
    emf_group: str = ""
    emf_metrics: tuple[str, ...] = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"


_NOT_SETTINGS = frozenset(("token_secret", "token_secret_file", "config"))
_LISTS = frozenset(("origins", "emf_metrics"))
_RANGES: dict[str, tuple[float, float]] = {
    "workers": (1, 64),
    "port": (0, 65535),
    "admin_port": (-1, 65535),
    "tick_seconds": (0.001, 5),
    "drain_seconds": (0, 3600),
    "messages_per_second": (0.1, 100_000),
    "message_burst": (1, 1_000_000),
    "connections_per_address": (1, 1_000_000),
}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s,A-Z]+")
_CLOSE = 0.85


def read_settings(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> ClusterSettings:
    """Settings from values given on the command line (None: not given), else `PROCTORWIRE_<NAME>` in the environment, else a file.

    The file is `config` (TOML, the same names): secrets may be there as `token_secret` or, better, `token_secret_file`.
    Raises `SettingsError` naming the setting.
    """
    _look_for_misspelt(environment)
    config = given.get("config") or environment.get(PREFIX + "CONFIG")
    in_file = _read_config(str(config)) if config else {}
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name in ClusterSettings.__struct_fields__:
        if name == "token_secrets":
            continue
        for value, place in (
            (given.get(name), "on the command line"),
            (environment.get(PREFIX + name.upper()), f"in {PREFIX}{name.upper()}"),
            (in_file.get(name), f"in {config}"),
        ):
            if value is not None:
                values[name] = _listed(value) if name in _LISTS and isinstance(value, str) else value
                places[name] = place
                break
    values["token_secrets"] = _find_secrets(given, environment, in_file, needed=not values.get("jwks"))
    try:
        settings = msgspec.convert(values, ClusterSettings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_wrong_type(error, values, places)) from error
    for name, (least, most) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise SettingsError(f"{name} is {value} ({places[name]}); it must be between {least:g} and {most:g}")
    if settings.admin_token and len(settings.admin_token.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(f"admin_token is shorter than {MIN_SECRET_BYTES} bytes; make a longer one, or leave it out")
    if settings.tls_key and not settings.tls_certificate:
        raise SettingsError(
            "tls_key is given and no tls_certificate: give --tls-cert too, or neither to go without TLS"
        )
    tls_context(settings)
    _check_jwks(settings.jwks)
    for name in settings.emf_metrics:
        if not is_emf_name(name):
            raise SettingsError(
                f"emf_metrics has {name!r}, which is no figure: docs/operations.md lists them, such as errors_total or save_p95"
            )
    for origin in settings.origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"origins has {origin!r}, which no browser sends: write scheme://host or scheme://host:port in lower case, "
                "without a path or a slash at the end, such as https://lms.example"
            )
    return settings


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _look_for_misspelt(environment: Iterable[str]) -> None:
    """A variable that looks like a setting and is none would be left out in silence: TLS, for one, would stay off."""
    known = {*ClusterSettings.__struct_fields__, *_NOT_SETTINGS} - {"token_secrets"}
    for variable in sorted(environment):
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name and name not in known:
            meant = [one for one in sorted(known) if one.startswith(name)]
            meant = meant or difflib.get_close_matches(name, known, 1, _CLOSE)
            if meant:
                raise SettingsError(f"{variable} is no setting; {PREFIX}{meant[0].upper()} is: rename or unset it")


def _wrong_type(error: msgspec.ValidationError, values: Mapping[str, Any], places: Mapping[str, str]) -> str:
    """What is wrong with which setting, where it was found and what it takes. A secret is not repeated."""
    found = re.search(r"\$\.(\w+)", str(error))
    if found is None or found[1] not in places:
        return f"setting {error}"
    name = found[1]
    shown = "not of its type" if name in ("admin_token", "redis_url") else repr(values[name])
    return f"{name} is {shown} ({places[name]}); give {_wanted(get_type_hints(ClusterSettings)[name])}"


def _wanted(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind is float:
        return "a number"
    if get_origin(kind) is tuple:
        return "a list of texts"
    return "text" if kind is str else "a whole number"


def _read_config(path: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"config {path} can't be read: {reason}; give a TOML file, as --print-config prints"
        ) from error
    known = {*ClusterSettings.__struct_fields__, *_NOT_SETTINGS} - {"token_secrets", "config"}
    for name in found:
        if name not in known:
            raise SettingsError(f"config {path}: there is no setting {name}; there are {', '.join(sorted(known))}")
    return found


def _find_secrets(
    given: Mapping[str, Any], environment: Mapping[str, str], in_file: Mapping[str, Any], *, needed: bool
) -> dict[str, str]:
    """From the most particular place that names any: command line, environment, file; in each, a file of secrets or the secret."""
    for place in (given, _from(environment), in_file):
        path, text = place.get("token_secret_file"), place.get("token_secret")
        if path:
            text = _read_secret_file(str(path))
            if not text:
                raise SettingsError(
                    f"token_secret_file {path} is empty; put a secret into it, or kid:secret on each line"
                )
        if text:
            try:
                return read_secrets(str(text), {})
            except SettingsError as error:
                raise SettingsError(f"token_secret_file {path}: {error}" if path else str(error)) from error
    return read_secrets(None, {}) if needed else {}


def _from(environment: Mapping[str, str]) -> dict[str, str | None]:
    return {name: environment.get(PREFIX + name.upper()) for name in ("token_secret", "token_secret_file")}


def _read_secret_file(path: str) -> str:
    """Secrets in a file: one, or `kid:secret` each on a line or after a comma."""
    try:
        return ",".join(Path(path).read_text().split())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"token_secret_file {path} can't be read: {reason}") from error


def _check_jwks(place: str) -> None:
    """A file must be there and be a JWKS; a URL may be away, and is asked again."""
    if not place:
        return
    if "://" in place and not place.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise SettingsError(f"jwks is {place!r}; give a file or an https:// URL")
    if "://" not in place:
        try:
            public_keys(Path(place).read_bytes())
        except (OSError, TokenRejected) as error:
            raise SettingsError(f"jwks {place} can't be used: {error}") from error


def show_settings(settings: ClusterSettings) -> str:
    """The settings as a file that `--config` would take, secrets masked."""
    lines = []
    for name in ClusterSettings.__struct_fields__:
        value = getattr(settings, name)
        if name == "token_secrets":
            kids = ", ".join(kid or "(no kid)" for kid in value) or "none"
            lines.append(f"# token secrets: {kids}")
        elif value is not None:
            if name == "admin_token":
                lines.append(f"# admin token: {'given' if value else 'none'}")
                continue
            shown = without_password(value) if name in ("redis_url", "jwks") else value
            lines.append(f"{name} = {msgspec.json.encode(shown).decode()}")
    return "\n".join(lines)


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    scheme, separator, rest = url.partition("://")
    address, mark, query = rest.partition("?")  # redis-py takes username and password there, too
    shown = [option for option in query.split("&") if not option.startswith(("username=", "password="))]
    rest = address.rpartition("@")[2] + (mark + "&".join(shown) if any(shown) else "")
    return f"{scheme}{separator}{rest}" if separator else url


def tls_context(settings: ClusterSettings) -> ssl.SSLContext | None:
    """The TLS side of the sockets, or None without a certificate. Raises `SettingsError` if its files can't be used."""
    if not settings.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # without a password given OpenSSL would ask for one on the terminal, and wait
        context.load_cert_chain(settings.tls_certificate, settings.tls_key or None, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        files = f"tls_certificate {settings.tls_certificate} with tls_key {settings.tls_key or '(in the same file)'}"
        # OpenSSL's own words ("PEM lib") name neither the file nor the matter
        reason = (
            error.strerror
            if not isinstance(error, ssl.SSLError)
            else "no PEM certificate with its own, unencrypted key"
        )
        raise SettingsError(f"{files} can't be used: {reason}") from error
    return context


def read_secrets(given: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Token secrets by `kid`: one secret, or `kid:secret,kid:secret` to have two while keys are changed.

    Raises `SettingsError` if there is none, or one is too short to be safe.
    """
    text = given if given is not None else environment.get(PREFIX + "TOKEN_SECRET", "")
    if not text:
        raise SettingsError(
            "no token secret: give PROCTORWIRE_TOKEN_SECRET, --token-secret-file or --jwks (make one: "
            "python -c 'import secrets; print(secrets.token_hex(32))')"
        )
    found: dict[str, str] = {}
    for part in text.split(","):
        kid, colon, secret = part.strip().partition(":")
        kid, secret = (kid, secret) if colon else ("", kid)
        if kid in found:
            named = f"of kid {kid}" if kid else "without a kid"
            raise SettingsError(f"there are two token secrets {named}; write them as kid:secret, each kid once")
        found[kid] = secret
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
