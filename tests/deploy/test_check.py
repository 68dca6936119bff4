"""`deploy check`: what it finds in an account, and the fix that it names."""

from __future__ import annotations

import datetime

import pytest
from stubbed import StubbedAccount

from deploy.check import check
from deploy.cost import Usage
from deploy.settings import Target, Wanted

REGION = "ap-southeast-1"
CERTIFICATE = f"arn:aws:acm:{REGION}:123456789012:certificate/c"
NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)


HUNDRED = Usage()
NODE = "cache.t4g.micro"


def found(account, mode, usage=HUNDRED, **wanted):
    given = Wanted(target=Target(mode, "prod", REGION), **wanted)
    return list(check(account, given, usage, clock=NOW.timestamp))


def only(findings, verdict):
    return [f"{each.what} -> {each.fix}" for each in findings if each.verdict == verdict]


@pytest.fixture
def account():
    return StubbedAccount().is_known().has_no_stack()


def serverless(account, *, concurrency=1000, rate=10_000.0, role="arn:aws:iam::123456789012:role/logs-of-apis"):
    limit = {"AccountLimit": {"ConcurrentExecutions": concurrency}}
    account.answers("lambda").add_response("get_account_settings", limit)
    settings = {"throttleSettings": {"rateLimit": rate, "burstLimit": 5000}}
    account.answers("apigateway").add_response("get_account", settings | ({"cloudwatchRoleArn": role} if role else {}))
    return account


def cluster(account, *, vcpus=32.0, vcpu_each=2, vpcs=1, vpcs_allowed=5.0, kind="t3a.small"):
    account.has_no_stack()
    ec2, quotas = account.answers("ec2"), account.answers("service-quotas")
    ec2.add_response(
        "describe_instance_type_offerings", {"InstanceTypeOfferings": [{"InstanceType": kind}] if vcpu_each else []}
    )
    if vcpu_each:
        types = {"InstanceTypes": [{"InstanceType": kind, "VCpuInfo": {"DefaultVCpus": vcpu_each}}]}
        ec2.add_response("describe_instance_types", types)
        quotas.add_response("get_service_quota", {"Quota": {"Value": vcpus}})
    ec2.add_response("describe_vpcs", {"Vpcs": [{"VpcId": f"vpc-{n}"} for n in range(vpcs)]})
    quotas.add_response("get_service_quota", {"Quota": {"Value": vpcs_allowed}})
    return account


def certificate(account, *, status="ISSUED", names=("exams.example.org",), ends=None):
    detail = {"DomainName": names[0], "SubjectAlternativeNames": list(names), "Status": status}
    detail["NotAfter"] = ends or NOW + datetime.timedelta(days=200)
    account.answers("acm").add_response("describe_certificate", {"Certificate": detail})
    return account


def test_an_account_that_has_all_it_takes(account):
    findings = found(serverless(account), "lambda", Usage(students=500))
    assert {each.verdict for each in findings} == {"ok"}
    assert findings[0].what == "credentials: account 123456789012, region ap-southeast-1"


def test_without_good_credentials_nothing_else_is_looked_at():
    account = StubbedAccount()
    account.answers("sts").add_client_error("get_caller_identity", "ExpiredToken", "expired", 403)
    (finding,) = found(account, "lambda")
    assert finding.verdict == "problem"
    assert "set AWS_PROFILE" in finding.fix


def test_a_new_account_with_ten_environments_is_told_to_ask_for_more(account):
    problems = only(found(serverless(account, concurrency=10), "lambda", Usage(students=3000)), "problem")
    assert any("oncurren" in problem and "10 allowed" in problem for problem in problems)
    assert all(problem.split(" -> ")[1] for problem in problems), "each has its fix"


def test_a_region_that_takes_less_than_the_stage_would(account):
    (problem,) = only(found(serverless(account, rate=2500.0), "lambda"), "problem")
    assert problem.startswith(
        "the account takes 2500 requests a second, the stage would take 4000 -> --set ThrottleRate=1000"
    )


def test_a_cluster_needs_its_vcpus(account):
    certificate(account)
    problems = only(
        found(cluster(account, vcpus=5.0), "ec2", certificate=CERTIFICATE, max_instances=12, cache=NODE), "problem"
    )
    assert problems == [
        "12 t3a.small need 24 vCPUs, the account has 5 -> "
        "ask AWS for 24 (Service Quotas, EC2, running on-demand standard instances)"
    ]


def test_a_type_that_the_region_does_not_have(account):
    certificate(account)
    problems = only(
        found(cluster(account, vcpu_each=0), "ec2", certificate=CERTIFICATE, instance_type="c7a.large"), "problem"
    )
    assert problems == ["c7a.large is not offered in ap-southeast-1 -> give another --instance-type"]


@pytest.mark.parametrize(
    ("wanted", "verdict", "said"),
    [
        ({"max_instances": 4}, "problem", "4 instances without a cache -> give its node type, such as --cache cache."),
        ({"cache_shards": 3}, "problem", "3 shards without a cache"),
        ({"cache": NODE}, "ok", f"ElastiCache: 2 nodes {NODE} ->"),
        ({"cache": NODE, "cache_shards": 3}, "ok", f"ElastiCache: 6 nodes {NODE} in 3 shards"),
        ({"cache": NODE, "others": (("CacheShards", "2"), ("CacheNodes", "1"))}, "ok", f"2 nodes {NODE} in 2 shards"),
    ],
)
def test_a_cache_is_looked_at(account, wanted, verdict, said):
    certificate(account)
    findings = found(cluster(account), "ec2", certificate=CERTIFICATE, **wanted)
    assert any(said in line for line in only(findings, verdict)), findings


@pytest.mark.parametrize(
    ("deployed", "wanted", "is_another"), [(1, 3, True), (3, 1, True), (3, 5, False), (1, 1, False)]
)
def test_another_cache_than_the_one_that_is_there_is_a_warning(deployed, wanted, is_another):
    account = certificate(StubbedAccount().is_known().has_no_stack(2))  # neither the shared one nor a serverless one
    parameters = {"CacheNodeType": NODE, "CacheShards": str(deployed)}
    stack = {
        "StackName": "proctorwire-prod-ec2",
        "CreationTime": NOW,
        "StackStatus": "CREATE_COMPLETE",
        "Parameters": [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    }
    account.answers("cloudformation").add_response("describe_stacks", {"Stacks": [stack]})
    given = {"certificate": CERTIFICATE, "cache_shards": wanted}
    warnings = only(found(cluster(account), "ec2", **given), "warning")
    assert [line.endswith("-> do it outside of exams") for line in warnings] == [True] * is_another


def test_no_vpc_left(account):
    certificate(account)
    problems = only(found(cluster(account, vpcs=5), "ec2", certificate=CERTIFICATE), "problem")
    assert problems[0].startswith("all 5 VPCs of the region are in use")


@pytest.mark.parametrize(
    ("detail", "wanted", "verdict", "said"),
    [
        ({}, {"domain": "exams.example.org"}, "ok", "certificate for exams.example.org"),
        ({"names": ("*.example.org",)}, {"domain": "exams.example.org"}, "ok", "certificate for *.example.org"),
        (
            {"names": ("*.example.org",)},
            {"domain": "a.b.example.org"},
            "problem",
            "request one that names a.b.example.org",
        ),
        ({"status": "PENDING_VALIDATION"}, {}, "problem", "make the CNAME records"),
        ({"ends": NOW + datetime.timedelta(days=9)}, {}, "warning", "the certificate ends on 2026-12-03"),
    ],
)
def test_a_certificate_is_looked_at(account, detail, wanted, verdict, said):
    account = serverless(certificate(account, **detail))
    findings = found(account, "lambda", certificate=CERTIFICATE, **wanted)
    assert any(said in line for line in only(findings, verdict))


def test_a_certificate_of_another_region_is_no_good(account):
    other = CERTIFICATE.replace(REGION, "us-east-1")
    problems = only(found(serverless(account), "lambda", certificate=other), "problem")
    assert problems[0].startswith("the certificate is not in ap-southeast-1")


@pytest.mark.parametrize(
    ("domain", "verdict", "said"),
    [
        ("exams.example.org", "ok", "exams.example.org is in zone example.org"),
        ("exams.example.net", "problem", "exams.example.net is not in zone example.org"),
        ("myexample.org", "problem", "myexample.org is not in zone example.org"),
        (None, "problem", "give --domain, such as exams.example.org"),
    ],
)
def test_a_zone_is_looked_at(account, domain, verdict, said):
    certificate(account, names=("exams.example.org", "exams.example.net", "myexample.org"))
    zone = {"HostedZone": {"Id": "Z", "Name": "example.org.", "CallerReference": "1"}}
    account.answers("route53").add_response("get_hosted_zone", zone)
    findings = found(serverless(account), "lambda", domain=domain, zone="Z1", certificate=CERTIFICATE)
    assert any(said in line for line in only(findings, verdict))


def test_what_may_not_be_looked_at_is_a_warning_and_the_rest_is_looked_at(account):
    denied = "not authorized to perform: lambda:GetAccountSettings"
    account.answers("lambda").add_client_error("get_account_settings", "AccessDeniedException", denied, 403)
    account.answers("apigateway").add_response("get_account", {"throttleSettings": {"rateLimit": 10_000.0}})
    findings = found(account, "lambda")
    (warning,) = only(findings, "warning")
    assert denied in warning
    assert findings[-1].what.startswith("API Gateway")
