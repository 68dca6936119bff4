"""Stacks by change set: what would change is known before anything does, and what happens is told while it does.

This module talks to CloudFormation through a client that it is given, and prints nothing. A stack that failed at its creation is
removed before it is made again, because CloudFormation can't update one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from botocore.exceptions import ClientError
from msgspec import Struct

from deploy import templates
from deploy.templates import Template

Sleep: TypeAlias = Callable[[float], None]
_POLL_SECONDS = 2.0
_CHANGE_SET = "proctorwire-deploy"
_FAILED_AT_CREATION = frozenset(("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"))
_REVIEW = "REVIEW_IN_PROGRESS"


class StackError(Exception):
    """CloudFormation refused or failed; the message is one line for the user."""


class Change(Struct, frozen=True):
    """One resource that would be added, modified or removed; a replaced one loses what it held."""

    action: Literal["Add", "Modify", "Remove", "Import", "Dynamic"]
    resource: str
    kind: str
    replacement: Literal["True", "False", "Conditional", ""] = ""


class ChangeSet(Struct, frozen=True):
    """What would change in a stack. `id` is empty if nothing would."""

    stack: str
    id: str
    creates: bool
    changes: tuple[Change, ...]


class Progress(Struct, frozen=True):
    """An event of a stack."""

    at: float
    resource: str
    kind: str
    status: str
    reason: str


class Stack(Struct, frozen=True):
    """A stack as it is."""

    name: str
    status: str
    parameters: dict[str, str]
    outputs: dict[str, str]

    @property
    def exists(self) -> bool:
        """Whether it holds anything: one that only waits for its first change set does not."""
        return self.status not in (_REVIEW, "DELETE_COMPLETE")

    @property
    def is_busy(self) -> bool:
        """Whether an operation is under way."""
        return self.status.endswith("_IN_PROGRESS") and self.status != _REVIEW


class Stacks:
    """The stacks of one account and region. All methods raise StackError."""

    def __init__(self, client: Any, sleep: Sleep = time.sleep, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._sleep = sleep
        self._clock = clock

    def describe(self, name: str) -> Stack | None:
        """A stack, or None if there is none of this name."""
        try:
            found = self._client.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise _refused(error) from error
        return Stack(
            name,
            found["StackStatus"],
            {p["ParameterKey"]: p.get("ParameterValue", "") for p in found.get("Parameters", ())},
            {o["OutputKey"]: o.get("OutputValue", "") for o in found.get("Outputs", ())},
        )

    def plan(self, name: str, template: Template, parameters: Mapping[str, str], tags: Mapping[str, str]) -> ChangeSet:
        """Make a change set and wait for it. Parameters that are not given keep the stack's value, else the template's default."""
        before = self._ready_for_change(name)
        creates = before is None or not before.exists
        known = {} if before is None or creates else before.parameters
        arguments = []
        for parameter in template.get("Parameters", {}):
            if parameter in parameters:
                arguments.append({"ParameterKey": parameter, "ParameterValue": parameters[parameter]})
            elif parameter in known:
                arguments.append({"ParameterKey": parameter, "UsePreviousValue": True})
        body = templates.body(template)
        if len(body.encode()) > templates.MAX_BODY_BYTES:
            raise StackError(
                f"the template of {name} is {len(body):,} bytes; CloudFormation takes {templates.MAX_BODY_BYTES:,}"
            )
        self._discard(name)
        made = self._call(
            "create_change_set",
            StackName=name,
            ChangeSetName=_CHANGE_SET,
            ChangeSetType="CREATE" if creates else "UPDATE",
            TemplateBody=body,
            Parameters=arguments,
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )
        return self._planned(name, made["Id"], creates)

    def _planned(self, name: str, change_set: str, creates: bool) -> ChangeSet:
        while True:
            found = self._call("describe_change_set", StackName=name, ChangeSetName=change_set)
            if found["Status"] == "CREATE_COMPLETE":
                break
            if found["Status"] == "FAILED":
                reason = found.get("StatusReason", "")
                self.discard(ChangeSet(name, change_set, creates, ()))
                if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                    return ChangeSet(name, "", creates, ())
                raise StackError(f"{name}: no change set could be made: {reason}")
            self._sleep(_POLL_SECONDS)
        changes = [_change(each["ResourceChange"]) for each in found.get("Changes", ()) if each["Type"] == "Resource"]
        while token := found.get("NextToken"):
            found = self._call("describe_change_set", StackName=name, ChangeSetName=change_set, NextToken=token)
            changes += [_change(each["ResourceChange"]) for each in found["Changes"] if each["Type"] == "Resource"]
        return ChangeSet(name, change_set, creates, tuple(changes))

    def discard(self, change_set: ChangeSet) -> None:
        """Drop a change set that is not wanted, and the empty stack that it left if it was to create one."""
        if change_set.id:
            self._call("delete_change_set", StackName=change_set.stack, ChangeSetName=change_set.id)
        if change_set.creates:
            stack = self.describe(change_set.stack)
            if stack is not None and stack.status == _REVIEW:
                self._call("delete_stack", StackName=change_set.stack)

    def apply(self, change_set: ChangeSet) -> Iterator[Progress]:
        """Carry out a change set; yield what happens until it is done. Raises StackError with the first cause if it fails."""
        if not change_set.id:
            return
        seen = self._seen(change_set.stack)
        self._call("execute_change_set", StackName=change_set.stack, ChangeSetName=change_set.id)
        good = "CREATE_COMPLETE" if change_set.creates else "UPDATE_COMPLETE"
        yield from self._watch(change_set.stack, seen, good)

    def delete(self, name: str) -> Iterator[Progress]:
        """Delete a stack; yield what happens until it is gone."""
        stack = self.describe(name)
        if stack is None:
            return
        seen = self._seen(name)
        identity = self._call("describe_stacks", StackName=name)["Stacks"][0]["StackId"]
        self._call("delete_stack", StackName=name)
        yield from self._watch(identity, seen, "DELETE_COMPLETE")

    def resources(self, name: str) -> dict[str, str]:
        """The physical ids of a stack's resources by their logical ones."""
        found: dict[str, str] = {}
        pages = self._client.get_paginator("list_stack_resources").paginate(StackName=name)
        try:
            for page in pages:
                for each in page["StackResourceSummaries"]:
                    found[each["LogicalResourceId"]] = each.get("PhysicalResourceId", "")
        except ClientError as error:
            raise _refused(error) from error
        return found

    # --- inside ---

    def _ready_for_change(self, name: str) -> Stack | None:
        stack = self.describe(name)
        if stack is None:
            return None
        if stack.is_busy:
            raise StackError(f"{name} is {stack.status}; wait until that is done (deploy status) and try again")
        if stack.status in _FAILED_AT_CREATION:
            for _ in self.delete(name):
                pass
            return None
        return stack

    def _discard(self, name: str) -> None:
        """Remove our change set of an earlier, interrupted run."""
        try:
            self._client.delete_change_set(StackName=name, ChangeSetName=_CHANGE_SET)
        except ClientError as error:
            if error.response["Error"]["Code"] not in (
                "ValidationError",
                "ChangeSetNotFound",
                "ChangeSetNotFoundException",
            ):
                raise _refused(error) from error

    def _watch(self, name: str, seen: set[str], good: str) -> Iterator[Progress]:
        cause = ""
        while True:
            stack = self.describe(name)
            for event_id, progress in self._events(name):
                if event_id not in seen:
                    seen.add(event_id)
                    if progress.status.endswith("_FAILED") and not cause and "cancelled" not in progress.reason:
                        cause = f"{progress.resource} ({progress.kind}): {progress.reason or progress.status}"
                    yield progress
            status = "DELETE_COMPLETE" if stack is None else stack.status
            if status == good:
                return
            if not status.endswith("_IN_PROGRESS"):
                raise StackError(
                    f"{name.rpartition('stack/')[2].split('/')[0]} ended as {status}: {cause or 'no cause was told'}"
                )
            self._sleep(_POLL_SECONDS)

    def _seen(self, name: str) -> set[str]:
        return {event_id for event_id, _ in self._events(name)}

    def _events(self, name: str) -> list[tuple[str, Progress]]:
        """All events, oldest first."""
        found = []
        try:
            for page in self._client.get_paginator("describe_stack_events").paginate(StackName=name):
                for event in page["StackEvents"]:
                    found.append(
                        (
                            event["EventId"],
                            Progress(
                                event["Timestamp"].timestamp(),
                                event["LogicalResourceId"],
                                event["ResourceType"],
                                event["ResourceStatus"],
                                event.get("ResourceStatusReason", ""),
                            ),
                        )
                    )
        except ClientError as error:
            if "does not exist" in str(error):
                return []
            raise _refused(error) from error
        return found[::-1]

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**arguments)
        except ClientError as error:
            raise _refused(error) from error
        return answer


def _change(found: dict[str, Any]) -> Change:
    return Change(
        found["Action"], found["LogicalResourceId"], found["ResourceType"], found.get("Replacement", "") or ""
    )


def _refused(error: ClientError) -> StackError:
    detail = error.response["Error"]
    return StackError(f"AWS refused {error.operation_name}: {detail.get('Code', '')}: {detail.get('Message', '')}")
