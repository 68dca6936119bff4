"""What would stand in the way of a deployment: credentials, quotas against the plan, certificate, DNS. Each with its fix.

Nothing is changed. A check that can't be made (the right to ask is missing) is a warning that says so.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from botocore.exceptions import ClientError
from msgspec import Struct

from compare.advice.quotas import limits
from compare.bill.prices import PriceError, load_prices
from compare.bill.stretch import CostError
from compare.model import calibration
from compare.model.units import Exam
from deploy.account import Account, AccountError
from deploy.cost import Usage
from deploy.names import Part
from deploy.operate import Operator
from deploy.settings import DEFAULT_INSTANCE_TYPE, Wanted, mode_parameters
from deploy.stacks import Stack

Verdict = Literal["ok", "warning", "problem"]
_DAY_SECONDS = 86_400
_ON_DEMAND = ("ec2", "L-1216C47A")  # running on-demand standard instances, in vCPUs
_VPCS = ("vpc", "L-F678F1CE")


class Finding(Struct, frozen=True):
    """One thing that was looked at. `fix` is empty if it is in order."""

    verdict: Verdict
    what: str
    fix: str = ""


def check(account: Account, wanted: Wanted, usage: Usage, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Look at everything. Without credentials there is one finding and no more."""
    try:
        number = account.number()
    except AccountError as error:
        yield Finding("problem", "credentials", str(error))
        return
    yield Finding("ok", f"credentials: account {number}, region {account.region}")
    yield from _Checks(account, wanted, usage, clock).all()


class _Checks:
    def __init__(self, account: Account, wanted: Wanted, usage: Usage, clock: Callable[[], float]) -> None:
        self._account = account
        self._wanted = wanted
        self._usage = usage
        self._clock = clock
        self._exam = Exam(students=usage.students, hours=usage.hours)

    def all(self) -> Iterator[Finding]:
        mode = self._wanted.target.mode
        looks = [self._prices, self._stacks, self._certificate, self._zone]
        looks += [self._lambda, self._gateway] if mode == "lambda" else [self._instances, self._cache, self._network]
        for look in looks:
            try:
                yield from look()
            except (ClientError, AccountError) as error:
                name = look.__name__.strip("_")
                yield Finding("warning", f"{name} could not be looked at", f"allow this to the credentials: {error}")

    def _prices(self) -> Iterator[Finding]:
        try:
            load_prices(self._account.region)
        except PriceError as error:
            yield Finding("warning", str(error), "`compare prices refresh` fetches a region's prices")

    def _stacks(self) -> Iterator[Finding]:
        for stack in self._deployed.values():
            if stack.is_busy:
                yield Finding("problem", f"{stack.name} is {stack.status}", "wait until that is done")
            elif "FAILED" in stack.status or stack.status == "ROLLBACK_COMPLETE":
                yield Finding(
                    "warning", f"{stack.name} is {stack.status}", "`deploy up` makes it anew, or goes on from there"
                )
            else:
                yield Finding("ok", f"{stack.name} is {stack.status}")

    def _certificate(self) -> Iterator[Finding]:
        arn, domain = self._wanted.certificate, self._wanted.domain
        region = self._account.region
        if not arn:
            if domain or self._wanted.target.mode == "ec2":
                what = f"no certificate for {domain or 'the load balancer'}"
                command = f"aws acm request-certificate --region {region} --validation-method DNS --domain-name"
                yield Finding("problem", what, f"`{command} {domain or 'NAME'}`, then give its ARN as --certificate")
            return
        if f":acm:{region}:" not in arn:
            yield Finding("problem", f"the certificate is not in {region}", f"request one there: {arn}")
            return
        found = self._account.client("acm").describe_certificate(CertificateArn=arn)["Certificate"]
        names = [found["DomainName"], *found.get("SubjectAlternativeNames", ())]
        if found["Status"] != "ISSUED":
            fix = "make the CNAME records that ACM asks for (aws acm describe-certificate shows them)"
            yield Finding("problem", f"the certificate is {found['Status']}", fix)
        elif domain and not any(_covers(name, domain) for name in names):
            yield Finding("problem", f"the certificate is for {', '.join(names)}", f"request one that names {domain}")
        elif "NotAfter" in found and found["NotAfter"].timestamp() < self._clock() + 30 * _DAY_SECONDS:
            fix = "ACM renews it only while its DNS record stands; an imported one must be imported again"
            yield Finding("warning", f"the certificate ends on {found['NotAfter']:%Y-%m-%d}", fix)
        else:
            yield Finding("ok", f"certificate for {', '.join(dict.fromkeys(names))}")

    def _zone(self) -> Iterator[Finding]:
        zone, domain = self._wanted.zone, self._wanted.domain
        if domain and not zone:
            fix = "make an alias or CNAME there to the name that `deploy outputs` tells, or give --zone"
            yield Finding("warning", f"{domain} is kept outside of Route 53", fix)
        if not zone:
            return
        name = self._account.client("route53").get_hosted_zone(Id=zone)["HostedZone"]["Name"].rstrip(".")
        if not domain:
            yield Finding("problem", f"zone {name} without a name in it", f"give --domain, such as exams.{name}")
        elif domain != name and not domain.endswith(f".{name}"):
            yield Finding("problem", f"{domain} is not in zone {name}", "give the --zone of its own domain")
        else:
            yield Finding("ok", f"{domain} is in zone {name}")

    # --- serverless ---

    def _lambda(self) -> Iterator[Finding]:
        allowed = self._account.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
        yield from self._within("serverless", concurrency=allowed)

    def _gateway(self) -> Iterator[Finding]:
        settings = self._account.client("apigateway").get_account()
        rate = settings.get("throttleSettings", {}).get("rateLimit", 10_000)
        wanted = dict(self._wanted.others).get("ThrottleRate", "4000")
        if float(wanted) >= rate:
            fix = f"--set ThrottleRate={int(rate * 0.4)}, or ask AWS for more (Service Quotas, API Gateway, throttle rate)"
            yield Finding(
                "problem", f"the account takes {rate:g} requests a second, the stage would take {wanted}", fix
            )
        else:
            yield Finding("ok", f"API Gateway: {rate:g} requests a second")
        if not settings.get("cloudwatchRoleArn"):
            yield Finding("ok", "API Gateway has no role to write access logs yet; the stack makes one")

    # --- EC2 ---

    def _instances(self) -> Iterator[Finding]:
        kind = self._wanted.instance_type or DEFAULT_INSTANCE_TYPE
        found = self._account.client("ec2").describe_instance_type_offerings(
            LocationType="region", Filters=[{"Name": "instance-type", "Values": [kind]}]
        )["InstanceTypeOfferings"]
        if not found:
            yield Finding("problem", f"{kind} is not offered in {self._account.region}", "give another --instance-type")
            return
        types = self._account.client("ec2").describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
        each, count = types[0]["VCpuInfo"]["DefaultVCpus"], self._wanted.max_instances or 1
        allowed = self._quota(*_ON_DEMAND)
        needed = each * count
        if needed > allowed:
            fix = f"ask AWS for {needed} (Service Quotas, EC2, running on-demand standard instances)"
            yield Finding("problem", f"{count} {kind} need {needed} vCPUs, the account has {allowed:g}", fix)
        else:
            yield Finding("ok", f"EC2: {needed} of {allowed:g} vCPUs")
        yield from self._within("cluster", instances=count, vcpus=each)

    def _cache(self) -> Iterator[Finding]:
        """By what is asked for, and else by what is deployed."""
        known = self._deployed["ec2"].parameters if "ec2" in self._deployed else {}
        values = {**known, **mode_parameters(self._wanted)}
        node = values.get("CacheNodeType", "none")
        shards, most = _count(values, "CacheShards", 1), _count(values, "MaxInstances", 1)
        if node == "none":
            if most > 1 or shards > 1:
                what = f"{shards} shards" if shards > 1 else f"{most} instances"
                yield Finding(
                    "problem", f"{what} without a cache", "give its node type, such as --cache cache.t4g.micro"
                )
            return
        each = _count(values, "CacheNodes", 2)
        where = f" in {shards} shards" if shards > 1 else ""
        yield Finding("ok", f"ElastiCache: {each * shards} nodes {node}{where}")
        before = _count(known, "CacheShards", 1) if known.get("CacheNodeType", "none") != "none" else None
        if before is not None and (before == 1) != (shards == 1):
            what = f"a cache of {shards} shards takes the place of the one of {before}: what lives in that one is gone"
            yield Finding("warning", what, "do it outside of exams")

    def _network(self) -> Iterator[Finding]:
        have = len(self._account.client("ec2").describe_vpcs()["Vpcs"])
        allowed = self._quota(*_VPCS)
        is_up = "ec2" in self._deployed
        if not is_up and have >= allowed:
            fix = "delete one that is not used, or ask AWS for more (Service Quotas, VPC)"
            yield Finding("problem", f"all {allowed:g} VPCs of the region are in use", fix)
        else:
            yield Finding("ok", f"VPCs: {have} of {allowed:g}")

    # --- inside ---

    def _within(
        self, deployment: str, *, concurrency: float = 1_000, instances: int = 1, vcpus: int = 2
    ) -> Iterator[Finding]:
        """The limits that the plan's exam comes near, by the model of `compare`."""
        try:
            exam = self._exam.checked()
        except CostError as error:
            yield Finding("problem", "the plan", str(error))
            return
        crossed = 0
        for limit in limits(exam, calibration.shipped(), instances, vcpus, concurrency):
            if limit.deployment == deployment and limit.needed > limit.allowed:
                crossed += 1
                what = f"{limit.name}: {_number(limit.needed)} {limit.unit} needed, {_number(limit.allowed)} allowed"
                yield Finding("problem", what, limit.advice)
        if not crossed:
            yield Finding("ok", f"quotas: room for {exam.students:,} students at the same time")

    @functools.cached_property
    def _deployed(self) -> dict[Part, Stack]:
        return Operator(self._account, self._wanted.target).stacks()

    def _quota(self, service: str, code: str) -> float:
        quotas: Any = self._account.client("service-quotas")
        try:
            value: float = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchResourceException":
                raise
            value = quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"]
        return value


def _count(values: Mapping[str, str], name: str, default: int) -> int:
    """A parameter that is a number; CloudFormation refuses one that is none."""
    text = values.get(name, "")
    return int(text) if text.isdecimal() else default


def _covers(name: str, domain: str) -> bool:
    """Whether a certificate's name is good for a domain: a star stands for one label (RFC 6125)."""
    if name.startswith("*."):
        return domain.partition(".")[2] == name[2:]
    return name == domain


def _number(value: float) -> str:
    return f"{math.ceil(value):,}"
