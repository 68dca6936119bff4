"""The steps of a move, over a port that is a real account or the emulated side of a rehearsal.

A step writes the plan (`core.migration.Move`) into the table and sets the DNS weights; the bridge does the rest, in paced slots.
While it does, a guard reads the bridge's health: beyond its limits the step is taken back by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec.structs import replace

from core.migration import Health, Limits, Move, MoveState, WrongStep, stepped, verdict, widened
from deploy.account import Account, AccountError, reaching

_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0
_MOST_WEIGHT = 255


class Plane(Protocol):
    """Where a move is kept, and what new connections are told."""

    def load(self) -> Move | None:
        """The move, as stored."""

    def save(self, before: Move | None, after: Move) -> bool:
        """Keep it, if the stored one is `before`."""

    def health(self) -> Health | None:
        """What the bridge reported last."""

    def weigh(self, percent: float) -> None:
        """Send this share of new connections to the cluster."""


class AccountPlane:
    """A stage in a real account: its state table, and its weighted records if there is a zone. Raises `AccountError`."""

    def __init__(self, account: Account, state_table: str, zone: str = "", domain: str = "") -> None:
        self._account = account
        self._table = state_table
        self._zone = zone
        self._domain = domain.rstrip(".")

    def _get(self, what: str) -> str | None:
        with reaching():
            answer = self._account.client("dynamodb").get_item(
                TableName=self._table, Key={"pk": {"S": "move"}, "sk": {"S": what}}, ConsistentRead=True
            )
        item = answer.get("Item")
        return None if item is None else str(item["m"]["S"])

    def load(self) -> Move | None:
        """See `Plane`."""
        from core.migration import decode_move

        text = self._get("move")
        return None if text is None else decode_move(text)

    def save(self, before: Move | None, after: Move) -> bool:
        """See `Plane`."""
        from core.migration import encode

        client = self._account.client("dynamodb")
        item = {
            "pk": {"S": "move"},
            "sk": {"S": "move"},
            "m": {"S": encode(after).decode()},
            "v": {"N": str(after.version)},
        }
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if before is not None:
            condition = {
                "ConditionExpression": "v = :v",
                "ExpressionAttributeValues": {":v": {"N": str(before.version)}},
            }
        try:
            with reaching():
                client.put_item(TableName=self._table, Item=item, **condition)
        except AccountError as error:
            if "ConditionalCheckFailedException" in str(error):
                return False
            raise
        return True

    def save_side(self, side: Mapping[str, str]) -> None:
        """Write down where the serverless side is, for the bridge on an instance."""
        item = {"pk": {"S": "move"}, "sk": {"S": "side"}, "m": {"S": json.dumps(dict(side))}}
        with reaching():
            self._account.client("dynamodb").put_item(TableName=self._table, Item=item)

    def health(self) -> Health | None:
        """See `Plane`."""
        from core.migration import decode_health

        text = self._get("health")
        return None if text is None else decode_health(text)

    def weigh(self, percent: float) -> None:
        """Change the two weighted records of the domain, and nothing else of them. Without a zone, nothing."""
        if not self._zone:
            return
        with reaching():
            client = self._account.client("route53")
            listed = client.list_resource_record_sets(
                HostedZoneId=self._zone, StartRecordName=self._domain, MaxItems="20"
            )
            changes: list[dict[str, Any]] = []
            for record in listed["ResourceRecordSets"]:
                if record["Name"].rstrip(".") == self._domain and record.get("SetIdentifier") in ("lambda", "ec2"):
                    weight = weights(percent)[record["SetIdentifier"]]
                    changes.append({"Action": "UPSERT", "ResourceRecordSet": {**record, "Weight": weight}})
            sides = {change["ResourceRecordSet"]["SetIdentifier"] for change in changes}
            if sides != {"lambda", "ec2"}:
                raise AccountError(
                    f"zone {self._zone} has no weighted records lambda and ec2 for {self._domain or '(no --domain)'}: "
                    "deploy both sides with --domain and --zone first"
                )
            client.change_resource_record_sets(
                HostedZoneId=self._zone, ChangeBatch={"Comment": "proctorwire migrate", "Changes": changes}
            )


def addresses(serverless: Mapping[str, str], cluster: Mapping[str, str]) -> dict[str, str]:
    """Where a move sends pages, from the outputs of both stacks: to names that DNS weights have no part in. Raises `WrongStep`."""
    management = serverless["ManagementUrl"]
    urls = {"lambda": "wss" + management.removeprefix("https"), "ec2": cluster.get("DirectUrl", cluster["SocketUrl"])}
    if urls["ec2"] == serverless["SocketUrl"]:
        raise WrongStep(
            f"{urls['ec2']} leads to either side, by its weights; pages need a name of the cluster alone: "
            "deploy up --mode ec2 --set DirectName=NAME, a name in the same zone and in the certificate"
        )
    return urls


_SIDE = {
    "PROCTORWIRE_MANAGEMENT_URL": "ManagementUrl",
    "PROCTORWIRE_SWEEP_QUEUE_URL": "SweepQueueUrl",
    "PROCTORWIRE_COMMAND_QUEUE_URL": "CommandQueueUrl",
    "PROCTORWIRE_VIEWS_QUEUE_URL": "ViewsQueueUrl",
}


def side_of(outputs: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    """What the bridge has to know of the serverless side, by the names of the functions' variables."""
    side = {variable: outputs[name] for variable, name in _SIDE.items()}
    if parameters.get("Audience"):
        side["PROCTORWIRE_AUDIENCE"] = parameters["Audience"]
    return side


def weights(percent: float) -> dict[str, int]:
    """Weights of the two records, of 0 to 255. A share that is neither none nor all is never rounded to one of these."""
    ec2 = round(percent * _MOST_WEIGHT / 100)
    if 0 < percent < 100:
        ec2 = min(max(ec2, 1), _MOST_WEIGHT - 1)
    return {"ec2": ec2, "lambda": _MOST_WEIGHT - ec2}


def start(plane: Plane, move: Move) -> Move:
    """Begin a move at 0 %. One that is finished, or was rolled back to 0 %, makes room for it. Raises `WrongStep`."""
    before = plane.load()
    if before is not None and before.state != "finished" and (before.percent or before.state != "rolled_back"):
        raise WrongStep(f"a move is under way ({before.state}, {before.percent:g} %); finish it or roll it back first")
    if before is not None and before.state == "finished" and (health := plane.health()) is not None and health.on_ec2:
        raise WrongStep(
            f"{health.on_ec2} participants of the last move are on the cluster in exams that are not closed, and a move that "
            "begins at 0 % would bring them back; wait until these exams are closed"
        )
    after = replace(move, version=1 if before is None else before.version + 1, started_at=move.changed_at)
    if not plane.save(before, after):
        raise WrongStep("somebody else began a move at the same time; look at `deploy migrate status`")
    plane.weigh(0.0)
    return after


def step(
    plane: Plane,
    state: MoveState,
    percent: float,
    now: float,
    reason: str = "",
    exams: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Move:
    """One step: the plan first, then what new connections are told. `exams` and `groups` are added. Raises `WrongStep`."""
    before = plane.load()
    if before is None:
        raise WrongStep("no move has been started: `deploy migrate start`")
    after = stepped(widened(before, exams, groups), state, percent, now, reason)
    if not plane.save(before, after):
        raise WrongStep("somebody else changed the move at the same time; look at `deploy migrate status`")
    plane.weigh(percent)
    return after


def follow(
    plane: Plane,
    move: Move,
    back_to: float,
    say: Callable[[str], None],
    *,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    look_seconds: float = _LOOK_SECONDS,
) -> str:
    """Watch a step until nobody waits; why it was taken back to `back_to` percent, or empty.

    Who can't be reached within a minute after the last slot stays where they are, and moves when they report again.
    """
    limits = limits or Limits()
    began = plane.health()
    reason = verdict(began, None, replace(limits, errors=10**9, offline_share=1.0), clock())
    ends = clock() + move.slot_seconds + _PATIENCE_SECONDS
    health = began
    while not reason:
        if health is not None and health.at > move.changed_at + 2 * look_seconds and health.waiting == 0:
            return ""
        if clock() > ends:
            say(f"{health.waiting if health else 0} students could not be reached; they move when they report again")
            return ""
        sleep(look_seconds)
        health = plane.health()
        if health is not None:
            say(f"{health.on_lambda} serverless, {health.on_ec2} on the cluster, {health.waiting} on their way")
        reason = verdict(health, began, limits, clock())
    step(plane, "rolled_back", back_to, clock(), reason)
    return reason


STEPS: Sequence[float] = (5, 25, 50, 100)
"""What `plan` proposes."""
