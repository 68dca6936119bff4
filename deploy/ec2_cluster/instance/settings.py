"""The settings of an instance: from what cloud-init wrote and from Secrets Manager, into the environment of its services.

Runs as root before each start of the server. Secrets touch no disk: `/run` is memory, and its files are for root, who hands them to
the services (the key of TLS for the server's group, which reads it itself).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DEPLOYMENT = Path("/etc/proctorwire/deployment.json")
RUN = Path("/run/proctorwire")
_DATA = "/var/lib/proctorwire"
_SERVER = "proctorwire"
_ALARMED = "errors_total,restarts_total,journal_behind_seconds"  # what the template's service alarms look at

Secret = Callable[[str], str]


def environment(deployment: Mapping[str, Any], secret: Secret, workers: int) -> dict[str, str]:
    """The variables of the server and of the HTTP API. `secret` reads one by its ARN."""
    cache = deployment["cache"]
    if cache:
        redis_url = f"rediss://proctorwire:{secret(deployment['cache_secret'])}@{cache}:6379"
    else:
        redis_url = ""
    variables = {
        "AWS_REGION": deployment["region"],
        "PROCTORWIRE_HOST": "0.0.0.0",  # noqa: S104  the security group admits the balancer only
        "PROCTORWIRE_PORT": "8080",
        "PROCTORWIRE_WORKERS": str(workers),
        "PROCTORWIRE_TOKEN_SECRET": secret(deployment["token_secret"]),
        "PROCTORWIRE_DATA_DIR": _DATA,
        "PROCTORWIRE_JOURNAL": deployment["journal"],
        "PROCTORWIRE_DRAIN_SECONDS": str(deployment["drain_seconds"]),
        "PROCTORWIRE_WEB_HOST": "0.0.0.0",  # noqa: S104
        "PROCTORWIRE_WEB_PORT": "8090",
        "PROCTORWIRE_SCHOOL_KEYS": secret(deployment["school_keys_secret"]),
        "PROCTORWIRE_SOCKET_URL": deployment["socket_url"],
        "PROCTORWIRE_ENDPOINTS": deployment["endpoints"],
    }
    if deployment["records"]:
        variables["PROCTORWIRE_RECORDS"] = deployment["records"]
        variables["PROCTORWIRE_RECORDS_SECRET"] = deployment["records_secret"]
    if redis_url:
        variables["PROCTORWIRE_REDIS_URL"] = redis_url
    if deployment["service_alarms"] == "on":
        variables["PROCTORWIRE_EMF"] = "/var/log/proctorwire/metrics.log"
        variables["PROCTORWIRE_EMF_GROUP"] = deployment["group"]
        variables["PROCTORWIRE_EMF_METRICS"] = _ALARMED
    if deployment["tls_secret"]:
        variables["PROCTORWIRE_TLS_CERTIFICATE"] = str(RUN / "certificate.pem")
        variables["PROCTORWIRE_TLS_KEY"] = str(RUN / "key.pem")
    return variables


def web_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Of the HTTP API, which without a cache uses the server's own Redis."""
    own = f"unix://{_DATA}/redis/redis.sock"
    return {**variables, "PROCTORWIRE_REDIS_URL": variables.get("PROCTORWIRE_REDIS_URL", own)}


def bridge_environment(variables: Mapping[str, str], deployment: Mapping[str, Any]) -> dict[str, str]:
    """Of the bridge, which finds the addresses of the serverless side in the table, once a move has been started."""
    return {
        **web_environment(variables),
        "PROCTORWIRE_STATE_TABLE": deployment["state_table"],
        "PROCTORWIRE_JOURNAL_TABLE": deployment["journal_table"],
        "PROCTORWIRE_RETENTION_DAYS": str(deployment["retention_days"]),
    }


def as_file(variables: Mapping[str, str]) -> str:
    """As systemd reads an `EnvironmentFile` (systemd.exec(5)): quoted, because a secret may hold anything but a line's end."""
    lines = []
    for name, value in variables.items():
        if "\n" in value or "\0" in value:
            raise ValueError(f"{name} holds the end of a line")
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
        lines.append(f'{name}="{quoted}"\n')
    return "".join(lines)


def write(deployment: Mapping[str, Any], secret: Secret, run: Path, workers: int, group: str | None = None) -> None:
    """Write the files of the services. The TLS files are for this group, too."""
    variables = environment(deployment, secret, workers)
    _private(run / "environment", as_file(variables))
    _private(run / "web-environment", as_file(web_environment(variables)))
    _private(run / "bridge-environment", as_file(bridge_environment(variables, deployment)))
    if deployment["tls_secret"]:
        pair = json.loads(secret(deployment["tls_secret"]))
        for name, part in (("certificate.pem", "certificate"), ("key.pem", "key")):
            _private(run / name, pair[part])
            if group is not None:
                shutil.chown(run / name, group=group)
            (run / name).chmod(0o640)


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def main() -> int:
    """Read, fetch, write."""
    import boto3

    deployment = json.loads(DEPLOYMENT.read_text())
    client = boto3.client("secretsmanager", region_name=deployment["region"])

    def secret(arn: str) -> str:
        text: str = client.get_secret_value(SecretId=arn)["SecretString"]
        return text

    write(deployment, secret, RUN, os.cpu_count() or 1, _SERVER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
