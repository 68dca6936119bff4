"""Bringing a stage up, looking at it, and taking it down: the steps behind the command, without its words.

A plan is made of change sets, so that it says what CloudFormation would do and not what we think it would. To deploy, the shared
stack comes first, then the code goes into its bucket, then the mode's stack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from deploy import templates
from deploy.account import Account, reaching
from deploy.cost import Costs, Usage, costs
from deploy.names import MODES, Mode, Part, stack_name
from deploy.package import Architecture, Artifact, build_ec2, build_lambda
from deploy.settings import (
    Target,
    Wanted,
    WrongInputError,
    mode_parameters,
    planned_outputs,
    school_keys,
    shared_outputs,
    shared_parameters,
)
from deploy.stacks import ChangeSet, Progress, Stack, Stacks

_TABLES = ("StateTable", "JournalTable")
_SECRETS = ("TokenSecret", "SchoolKeysSecret")


class Planned(Struct, frozen=True):
    """What would be done. `keys` are those of schools that the shared stack would begin with."""

    wanted: Wanted
    shared: ChangeSet
    mode: ChangeSet
    artifact: Artifact
    keys: dict[str, str]
    costs: Costs

    @property
    def is_empty(self) -> bool:
        """Whether everything is as it is wanted."""
        return not self.shared.changes and not self.mode.changes

    @property
    def replaced(self) -> list[str]:
        """Resources that would be made anew, and lose what they hold."""
        changes = (*self.shared.changes, *self.mode.changes)
        return [change.resource for change in changes if change.replacement == "True"]


class LogLine(Struct, frozen=True):
    """A line of a log group."""

    at: float
    source: str
    text: str
    id: str


class Operator:
    """The operations on one stage. All raise AccountError, StackError, PackageError or WrongInputError, in one line."""

    def __init__(self, account: Account, target: Target, stacks: Stacks | None = None) -> None:
        self._account = account
        self._target = target.checked()
        self._stacks = stacks or Stacks(account.client("cloudformation"))

    # --- up ---

    def plan(self, wanted: Wanted, usage: Usage, artifact: Artifact) -> Planned:
        """Make both change sets. Nothing is changed by that."""
        number = self._account.number()
        shared_now = self._existing("shared")
        keys = school_keys(wanted.schools or ("default",)) if shared_now is None else {}
        if shared_now is not None and wanted.schools:
            secret = f"proctorwire/{self._target.stage}/school-keys"
            raise WrongInputError(f"--school: the stage has its keys already; add school:key to the secret {secret}")
        self._expect_certificate(wanted)
        outputs = planned_outputs(self._target, number) if shared_now is None else shared_now.outputs
        with reaching():
            shared = self._plan_shared(wanted, keys)
            try:
                mode = self._plan_mode(wanted, outputs, artifact)
            except Exception:
                self._stacks.discard(shared)
                raise
        return Planned(wanted, shared, mode, artifact, keys, self._costs(wanted, usage, outputs, shared_now))

    def apply(self, planned: Planned) -> Iterator[Progress]:
        """Carry a plan out; yield what happens."""
        with reaching():
            yield from self._stacks.apply(planned.shared)
            shared = self._existing("shared")
            assert shared is not None  # it has just been made, or was there before
            self._upload(planned.artifact, shared.outputs["ArtifactBucket"])
            mode = planned.mode
            if planned.shared.creates:  # it was planned with what the shared stack would be called
                self._stacks.discard(mode)
                mode = self._plan_mode(planned.wanted, shared.outputs, planned.artifact)
            yield from self._stacks.apply(mode)

    def discard(self, planned: Planned) -> None:
        """Drop a plan."""
        with reaching():
            self._stacks.discard(planned.mode)
            self._stacks.discard(planned.shared)

    def processor(self, wanted: Wanted) -> Architecture:
        """Of what will run the code."""
        now = self._existing(self._target.mode)
        return wanted.processor({} if now is None else now.parameters)

    # --- looking ---

    def stacks(self) -> dict[Part, Stack]:
        """The stacks of the stage that there are."""
        parts: tuple[Part, ...] = ("shared", *MODES)
        with reaching():
            found = {part: self._stacks.describe(stack_name(self._target.stage, part)) for part in parts}
        return {part: stack for part, stack in found.items() if stack is not None and stack.exists}

    def outputs(self) -> dict[str, str]:
        """The outputs of the mode's stack. Raises WrongInputError if there is none."""
        stack = self._existing(self._target.mode)
        if stack is None:
            raise WrongInputError(f"--stage: {self._name(self._target.mode)} is not deployed in {self._account.region}")
        return stack.outputs

    def alarms(self) -> list[str]:
        """The alarms of the stage that ring, with what they say."""
        with reaching():
            pages = self._account.client("cloudwatch").get_paginator("describe_alarms")
            found = pages.paginate(AlarmNamePrefix=f"proctorwire-{self._target.stage}-", StateValue="ALARM")
            return [
                f"{alarm['AlarmName']}: {alarm.get('AlarmDescription', '')}"
                for page in found
                for alarm in page["MetricAlarms"]
            ]

    def logs(self, since: float, pattern: str = "") -> list[LogLine]:
        """What the mode's logs say since then, oldest first."""
        prefix = f"/proctorwire/{self._target.stage}/{self._target.mode}/"
        client, lines = self._account.client("logs"), []
        with reaching():
            groups = client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
            for name in [group["logGroupName"] for page in groups for group in page["logGroups"]]:
                request = {"logGroupName": name, "startTime": int(since * 1000)}
                if pattern:
                    request["filterPattern"] = pattern
                for page in client.get_paginator("filter_log_events").paginate(**request):
                    for event in page["events"]:
                        source = name.removeprefix(prefix)
                        lines.append(
                            LogLine(event["timestamp"] / 1000, source, event["message"].rstrip(), event["eventId"])
                        )
        return sorted(lines, key=lambda line: line.at)

    # --- down ---

    def down(self) -> Iterator[Progress]:
        """Delete the mode's stack. What is kept stays in the shared one."""
        with reaching():
            yield from self._stacks.delete(self._name(self._target.mode))

    def others(self) -> list[str]:
        """Stacks of the stage that use the shared one, but for this mode's."""
        return [stack.name for part, stack in self.stacks().items() if part not in ("shared", self._target.mode)]

    def delete_data(self) -> Iterator[Progress]:
        """Delete the shared stack and everything that it keeps when it is deleted: tables, secrets, bucket, key. For good."""
        stack = self._existing("shared")
        if stack is None:
            return
        with reaching():
            held = self._stacks.resources(stack.name)
            dynamodb = self._account.client("dynamodb")
            for table in _TABLES:
                if held.get(table):
                    dynamodb.update_table(TableName=held[table], DeletionProtectionEnabled=False)
            yield from self._stacks.delete(stack.name)
            self._empty(held.get("ArtifactBucket", ""))
            yield from self._gone(held, _TABLES, lambda name: dynamodb.delete_table(TableName=name))
            secrets = self._account.client("secretsmanager")
            yield from self._gone(
                held, _SECRETS, lambda name: secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
            )
            s3 = self._account.client("s3")
            yield from self._gone(held, ("ArtifactBucket",), lambda name: s3.delete_bucket(Bucket=name))
            kms = self._account.client("kms")
            yield from self._gone(
                held, ("Key",), lambda name: kms.schedule_key_deletion(KeyId=name, PendingWindowInDays=7)
            )

    # --- inside ---

    def _name(self, part: Part) -> str:
        return stack_name(self._target.stage, part)

    def _existing(self, part: Part) -> Stack | None:
        with reaching():
            stack = self._stacks.describe(self._name(part))
        return stack if stack is not None and stack.exists and stack.outputs else None

    def _tags(self) -> dict[str, str]:
        return {"proctorwire-stage": self._target.stage}

    def _plan_shared(self, wanted: Wanted, keys: Mapping[str, str]) -> ChangeSet:
        parameters = shared_parameters(wanted)
        if keys:
            parameters["SchoolKeys"] = ",".join(f"{school}:{key}" for school, key in keys.items())
        return self._stacks.plan(self._name("shared"), templates.load("shared"), parameters, self._tags())

    def _plan_mode(self, wanted: Wanted, outputs: Mapping[str, str], artifact: Artifact) -> ChangeSet:
        mode = self._target.mode
        parameters = mode_parameters(wanted) | shared_outputs(mode, outputs)
        parameters |= {"CodeBucket": outputs["ArtifactBucket"], "CodeKey": artifact.key}
        now = self._existing(mode)
        if mode == "lambda" and now is None:
            parameters["ApiLogRole"] = "existing" if self._has_api_log_role() else "create"
        return self._stacks.plan(self._name(mode), templates.load(mode), parameters, self._tags())

    def _expect_certificate(self, wanted: Wanted) -> None:
        if self._target.mode == "ec2" and not wanted.certificate and self._existing("ec2") is None:
            raise WrongInputError(
                "--certificate: the balancer needs the ARN of a certificate in ACM; request one with "
                f"`aws acm request-certificate --region {self._account.region} --validation-method DNS --domain-name NAME`"
            )

    def _has_api_log_role(self) -> bool:
        return bool(self._account.client("apigateway").get_account().get("cloudwatchRoleArn"))

    def _costs(self, wanted: Wanted, usage: Usage, outputs: Mapping[str, str], shared_now: Stack | None) -> Costs:
        mode = self._target.mode
        now = self._existing(mode)
        known_shared = {} if shared_now is None else shared_now.parameters
        known = {} if now is None else now.parameters
        given = known | mode_parameters(wanted) | shared_outputs(mode, outputs)
        parts = {
            "shared": (templates.load("shared"), known_shared | shared_parameters(wanted)),
            mode: (templates.load(mode), given),
        }
        return costs(mode, self._account.region, parts, usage)

    def _upload(self, artifact: Artifact, bucket: str) -> None:
        s3 = self._account.client("s3")
        if not s3.list_objects_v2(Bucket=bucket, Prefix=artifact.key, MaxKeys=1).get("KeyCount"):
            s3.upload_file(str(artifact.path), bucket, artifact.key)

    def _empty(self, bucket: str) -> None:
        if not bucket:
            return
        s3 = self._account.client("s3")
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            objects = [
                {"Key": each["Key"], "VersionId": each["VersionId"]}
                for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]
            if objects:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})

    def _gone(
        self, held: Mapping[str, str], names: tuple[str, ...], delete: Callable[[str], Any]
    ) -> Iterator[Progress]:
        for name in names:
            if held.get(name):
                delete(held[name])
                yield Progress(time.time(), name, held[name], "DELETE_COMPLETE", "")


def build(mode: Mode, folder: Path, processor: Architecture) -> Artifact:
    """The code for this deployment. Raises PackageError."""
    return (build_lambda if mode == "lambda" else build_ec2)(folder, processor)
