"""What a deployment is told, and which parameter of which template that becomes.

Each option of the command is one parameter; every other parameter can be set by name. What is not given stays as it was deployed.
"""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Mapping, Sequence

from msgspec import Struct

from deploy import templates
from deploy.names import STAGE, Mode
from deploy.package import Architecture

_FROM_SHARED: dict[Mode, tuple[str, ...]] = {
    "lambda": ("StateTable", "JournalTable", "TokenSecretArn", "SchoolKeysSecretArn", "AlarmTopicArn", "KeyArn"),
    "ec2": ("StateTable", "JournalTable", "TokenSecretArn", "SchoolKeysSecretArn", "AlarmTopicArn", "KeyArn"),
}
_FROM_DATABASE = ("DatabaseEndpoint", "DatabaseSecretArn", "DatabaseClientsGroup")
"""Of the shared stack's database, if it has one: the EC2 deployment keeps its records there."""
_OURS = frozenset(("Stage", "CodeBucket", "CodeKey", "SchoolKeys", "ApiLogRole", "Architecture", "ImageParameter"))
"""Parameters that the command decides itself."""

_IMAGES = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-"
_SCHOOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DEFAULT_INSTANCE_TYPE = "t3a.small"  # the template's, too


class WrongInputError(Exception):
    """An option is missing or wrong; the message names it and says what to give."""


class Target(Struct, frozen=True):
    """Which deployment."""

    mode: Mode
    stage: str
    region: str

    def checked(self) -> Target:
        """Itself. Raises WrongInputError."""
        if not STAGE.fullmatch(self.stage):
            raise WrongInputError(
                f"--stage: {self.stage!r} is no name of a stage; give a lower-case letter, then up to 15 of a-z, 0-9 and -"
            )
        return self


class Wanted(Struct, frozen=True, kw_only=True):
    """A deployment as it is asked for; None leaves what is."""

    target: Target
    architecture: Architecture | None = None
    instance_type: str | None = None
    min_instances: int | None = None
    max_instances: int | None = None
    cache: str | None = None
    cache_shards: int | None = None
    tls: str | None = None
    domain: str | None = None
    certificate: str | None = None
    zone: str | None = None
    alarm_email: str | None = None
    schools: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    def processor(self, known: Mapping[str, str]) -> Architecture:
        """Of what will run the code; `known` are the parameters that are deployed now."""
        if self.target.mode == "lambda":
            deployed: Architecture = "x86_64" if known.get("Architecture") == "x86_64" else "arm64"
            return self.architecture or deployed
        return processor_of(self.instance_type or known.get("InstanceType") or DEFAULT_INSTANCE_TYPE)


def processor_of(instance_type: str) -> Architecture:
    """Of an instance type: AWS's own processors have a `g` behind the generation (t4g, c7gn)."""
    return "arm64" if re.match(r"[a-z]+\d+g", instance_type) else "x86_64"


def mode_parameters(wanted: Wanted) -> dict[str, str]:
    """Parameters of the mode's stack, but for those that come from the shared one and the code. Raises WrongInputError."""
    mode = wanted.target.mode
    given: dict[str, object | None] = {
        "Stage": wanted.target.stage,
        "DomainName": wanted.domain,
        "CertificateArn": wanted.certificate,
        "HostedZoneId": wanted.zone,
    }
    if mode == "lambda":
        given["Architecture"] = wanted.architecture
    else:
        given |= {
            "InstanceType": wanted.instance_type,
            "MinInstances": wanted.min_instances,
            "MaxInstances": wanted.max_instances,
            "CacheNodeType": wanted.cache,
            "CacheShards": wanted.cache_shards,
            "TlsAt": wanted.tls,
        }
        if wanted.cache == "none" and (wanted.cache_shards or 1) > 1:
            raise WrongInputError(
                "--cache-shards: shards are of a cache; give its node type as --cache cache.t4g.micro"
            )
        if wanted.instance_type is not None:
            given["ImageParameter"] = _IMAGES + processor_of(wanted.instance_type)
    values = {name: str(value) for name, value in given.items() if value is not None}
    return values | _others(wanted, mode)


def shared_parameters(wanted: Wanted) -> dict[str, str]:
    """Parameters of the shared stack, but for the schools' keys. Raises WrongInputError."""
    values = {"Stage": wanted.target.stage}
    if wanted.alarm_email is not None:
        values["AlarmEmail"] = wanted.alarm_email
    return values | _others(wanted, "shared")


def _others(wanted: Wanted, part: templates.TemplateName) -> dict[str, str]:
    """What was set by name, for this template."""
    mine = set(templates.load(part)["Parameters"]) - _OURS
    known = mine | set(templates.load("shared")["Parameters"]) | set(templates.load(wanted.target.mode)["Parameters"])
    taken = {*_FROM_SHARED[wanted.target.mode], *_FROM_DATABASE}
    for name, _ in wanted.others:
        if name not in known - _OURS - taken:
            near = difflib.get_close_matches(name, sorted(known - _OURS - taken), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise WrongInputError(f"--set: there is no parameter {name} for {wanted.target.mode}{hint}")
    return {name: value for name, value in wanted.others if name in mine}


def school_keys(schools: Sequence[str]) -> dict[str, str]:
    """A new key for each school. Raises WrongInputError."""
    for school in schools:
        if not _SCHOOL.fullmatch(school):
            raise WrongInputError(
                f"--school: {school!r} is no name of a school; give letters, digits, '.', '_' and '-'"
            )
    return {school: new_school_key() for school in schools}


def shared_outputs(mode: Mode, outputs: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a mode's stack that are outputs of the shared one."""
    found = {name: outputs[name] for name in _FROM_SHARED[mode]}
    if mode == "ec2":
        found |= {name: outputs.get(name, "") for name in _FROM_DATABASE}
    return found


def planned_outputs(target: Target, account: str) -> dict[str, str]:
    """What the outputs of a shared stack that is not there yet will look like, to plan with."""
    stage, region = target.stage, target.region
    secret = f"arn:aws:secretsmanager:{region}:{account}:secret:proctorwire/{stage}"
    return {
        "StateTable": f"proctorwire-{stage}-state",
        "JournalTable": f"proctorwire-{stage}-journal",
        "TokenSecretArn": f"{secret}/token-planned",
        "SchoolKeysSecretArn": f"{secret}/school-keys-planned",
        "AlarmTopicArn": f"arn:aws:sns:{region}:{account}:proctorwire-{stage}-alarms",
        "KeyArn": f"arn:aws:kms:{region}:{account}:key/planned",
        "ArtifactBucket": f"proctorwire-{stage}-planned",
    }


def new_school_key() -> str:
    """A key for a school."""
    return secrets.token_urlsafe(32)
