"""The end of an instance: notices that it will be terminated, leaves the load balancer, drains, and says so.

Auto Scaling writes its intention into the instance's metadata (`autoscaling/target-lifecycle-state`), EC2 that of taking a spot
instance back (`spot/instance-action`). Then, in this order: leave the target groups, wait until the balancer sends no new
connections, stop the services (the server tells its clients to reconnect, over some time, and flushes), and complete the lifecycle
action. Each step may be repeated; if one fails the next is taken all the same, because the instance will be gone in any case.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from deploy.ec2_cluster.instance.settings import DEPLOYMENT

log = logging.getLogger("drain")

_METADATA = "http://169.254.169.254/latest"
_LOOK_SECONDS = 5.0
_LEAVING_SECONDS = 90.0
_LEFT = frozenset(("draining", "unused"))
SETTLE_SECONDS = 20.0
"""A Network Load Balancer may send new connections for a while after it has said that a target is draining."""

SERVICES = ("proctorwire.service", "proctorwire-web.service")


class Metadata(Protocol):
    """What an instance may know of itself."""

    def get(self, path: str) -> str | None:
        """A value, or None if there is none."""


class InstanceMetadata:
    """The metadata service, version 2: a token for each look, since looks are rare."""

    def __init__(self, base: str = _METADATA) -> None:
        self._base = base

    def get(self, path: str) -> str | None:
        """See `Metadata`."""
        ask = urllib.request.Request(  # noqa: S310  a fixed address of the instance's own
            f"{self._base}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        )
        try:
            token = _read(ask)
            found = urllib.request.Request(  # noqa: S310
                f"{self._base}/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token}
            )
            return _read(found)
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 404:
                    log.warning("metadata: %s %s", path, error.code)
            return None
        except OSError as error:
            log.warning("metadata: %s", error)
            return None


def _read(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text


def must_go(metadata: Metadata) -> bool:
    """Whether this instance will be terminated."""
    return metadata.get("autoscaling/target-lifecycle-state") == "Terminated" or bool(
        metadata.get("spot/instance-action")
    )


class Drain:
    """The steps. `stop` stops the services and returns when they have ended."""

    def __init__(
        self,
        deployment: Mapping[str, Any],
        instance: str,
        balancing: Any,
        scaling: Any,
        stop: Callable[[], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment = deployment
        self._instance = instance
        self._balancing = balancing
        self._scaling = scaling
        self._stop = stop
        self._sleep = sleep
        self._clock = clock

    def run(self) -> None:
        """Do all of it."""
        for step in (self._leave, self._wait_until_left, self._stop, self._complete):
            try:
                step()
            except Exception:
                log.exception("a step of the drain failed; going on with the next")

    def _leave(self) -> None:
        log.info("leaving the load balancer")
        for group in (self._deployment["socket_targets"], self._deployment["web_targets"]):
            self._balancing.deregister_targets(TargetGroupArn=group, Targets=[{"Id": self._instance}])

    def _wait_until_left(self) -> None:
        deadline = self._clock() + _LEAVING_SECONDS
        while self._state() not in _LEFT and self._clock() < deadline:
            self._sleep(2.0)
        self._sleep(SETTLE_SECONDS)

    def _state(self) -> str:
        found = self._balancing.describe_target_health(
            TargetGroupArn=self._deployment["socket_targets"], Targets=[{"Id": self._instance}]
        )["TargetHealthDescriptions"]
        state: str = found[0]["TargetHealth"]["State"] if found else "unused"
        return state

    def _complete(self) -> None:
        log.info("drained")
        self._scaling.complete_lifecycle_action(
            AutoScalingGroupName=self._deployment["group"],
            LifecycleHookName=self._deployment["hook"],
            LifecycleActionResult="CONTINUE",
            InstanceId=self._instance,
        )


def _stop_services() -> None:
    log.info("stopping: clients are told to reconnect")
    subprocess.run(["systemctl", "stop", *SERVICES], check=True)


def main() -> int:
    """Look until it is time, drain once, then wait for the end."""
    import boto3

    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
    deployment = json.loads(DEPLOYMENT.read_text())
    metadata = InstanceMetadata()
    while not must_go(metadata):
        time.sleep(_LOOK_SECONDS)
    instance = metadata.get("instance-id") or ""
    balancing = boto3.client("elbv2", region_name=deployment["region"])
    scaling = boto3.client("autoscaling", region_name=deployment["region"])
    Drain(deployment, instance, balancing, scaling, _stop_services).run()
    while True:  # the unit would start it again, and the drain with it
        time.sleep(3_600)


if __name__ == "__main__":
    sys.exit(main())
