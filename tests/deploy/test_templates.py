"""The templates: what they must agree on with the code, and what nobody may be allowed by them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from adapters.lambda_apigw import resources, rights
from core.messages import CLIENT_ACTIONS
from deploy import templates
from deploy.cost import evaluate
from deploy.settings import DEFAULT_INSTANCE_TYPE, processor_of, shared_outputs

ROOT = Path(__file__).parent.parent.parent
ALL = ("shared", "lambda", "ec2")
LOADED = {name: templates.load(name) for name in ALL}
SHARED, LAMBDA, EC2 = (LOADED[name] for name in ALL)


def properties(template, name):
    return template["Resources"][name]["Properties"]


def walk(value):
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(part)


def statements(template):
    """All statements of policies, with the resource they stand in."""
    for name, resource in template["Resources"].items():
        for value in walk(resource.get("Properties", {})):
            if isinstance(value, dict) and "Effect" in value:
                yield name, value


def listed(value):
    return value if isinstance(value, list) else [value]


# --- as the code has it ---------------------------------------------------------------------------------------------------


def test_tables_are_those_of_the_code():
    for wanted, name in zip(resources.tables(), ("StateTable", "JournalTable"), strict=True):
        table = properties(SHARED, name)
        assert {key: table[key] for key in wanted if key != "TableName"} == {
            key: value for key, value in wanted.items() if key != "TableName"
        }
        assert table["TimeToLiveSpecification"] == {"AttributeName": resources.TTL_ATTRIBUTE, "Enabled": True}


def test_who_serves_timelines_may_query_the_journal_and_who_decides_may_not():
    def may_query(template, where):
        found = [s for name, s in statements(template) if name == where and "JournalTable" in str(s.get("Resource"))]
        return "dynamodb:Query" in [action for s in found for action in listed(s["Action"])]

    assert may_query(LAMBDA, "HttpRole")
    assert may_query(EC2, "InstanceRole")
    assert not may_query(LAMBDA, "DecidePolicy")


def test_queues_are_those_of_the_code_and_their_functions_have_the_timeouts_these_assume():
    queues = [*resources.queues(), resources.views_queue()]
    for wanted, name in zip(queues, ("Sweep", "Command", "Views"), strict=True):
        queue, function = properties(LAMBDA, f"{name}Queue"), properties(LAMBDA, f"{name}Function")
        window = properties(LAMBDA, f"{name}Source").get("MaximumBatchingWindowInSeconds", 0)
        assert {key: str(queue[key]) for key in wanted["Attributes"]} == wanted["Attributes"]
        assert int(queue["VisibilityTimeout"]) == 6 * function["Timeout"] + window
        assert "ReportBatchItemFailures" in properties(LAMBDA, f"{name}Source")["FunctionResponseTypes"]


def test_views_are_collected_as_the_code_says_by_whoever_publishes():
    source = properties(LAMBDA, "ViewsSource")
    assert source["BatchSize"] == resources.VIEWS_BATCH_SIZE
    assert source["MaximumBatchingWindowInSeconds"] == resources.VIEWS_WINDOW_SECONDS
    publishing = {
        name.removesuffix("Function")
        for name, function in templates.of_type(LAMBDA, "AWS::Lambda::Function").items()
        if (variables := function["Properties"]["Environment"]["Variables"]).get("PROCTORWIRE_VIEWS_QUEUE_URL")
        == {"Ref": "ViewsQueue"}
        and variables["PROCTORWIRE_DIRECT_WATCHERS"] == {"Ref": "DirectWatchers"}
    }
    assert publishing == {"Disconnect", "Message", "Sweep", "Command", "Http"}


def test_every_action_has_its_route_and_only_connect_asks_the_authorizer():
    routes = {
        each["Properties"]["RouteKey"]: each["Properties"]
        for each in templates.of_type(LAMBDA, "AWS::ApiGatewayV2::Route").values()
        if each["Properties"]["ApiId"] == {"Ref": "SocketApi"}
    }
    assert set(routes) == {"$connect", "$disconnect", "$default", *CLIENT_ACTIONS}
    assert {key for key, route in routes.items() if route.get("AuthorizationType") == "CUSTOM"} == {"$connect"}
    to_messages = {"Fn::Sub": "integrations/${MessageIntegration}"}
    assert all(routes[key]["Target"] == to_messages for key in ("$default", *CLIENT_ACTIONS))


def test_handlers_exist_and_take_the_variables_that_they_are_given():
    known = set(re.findall(r"PROCTORWIRE_[A-Z_]+", (ROOT / "adapters/lambda_apigw/config.py").read_text()))
    for name, function in templates.of_type(LAMBDA, "AWS::Lambda::Function").items():
        module, _, handler = function["Properties"]["Handler"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), handler)), name
        variables = function["Properties"]["Environment"]["Variables"]
        assert variables.keys() <= known, name
        assert {"PROCTORWIRE_STATE_TABLE", "PROCTORWIRE_JOURNAL_TABLE"} <= variables.keys(), name


@pytest.mark.parametrize("mode", ["lambda", "ec2"])
def test_what_a_stack_takes_from_the_shared_one_is_there(mode):
    taken = shared_outputs(mode, {name: name for name in SHARED["Outputs"]})
    assert set(taken) <= set(LOADED[mode]["Parameters"])


def test_the_database_of_the_shared_stack_is_the_ec2_deployments_once_it_is_there_and_gone_again_with_it():
    names = ("DatabaseEndpoint", "DatabaseSecretArn", "DatabaseClientsGroup")
    without = {name: name for name in SHARED["Outputs"] if name not in names}
    assert {shared_outputs("ec2", without)[name] for name in names} == {""}
    assert shared_outputs("ec2", without | dict.fromkeys(names, "x"))["DatabaseEndpoint"] == "x"
    assert not set(names) & set(shared_outputs("lambda", without)), (
        "functions are in no VPC: their records are in DynamoDB"
    )
    network = properties(EC2, "InstanceTemplate")["LaunchTemplateData"]["NetworkInterfaces"][0]
    assert {"Fn::If": ["HasDatabase", {"Ref": "DatabaseClientsGroup"}, {"Ref": "AWS::NoValue"}]} in network["Groups"]


def test_who_keeps_records_of_schools_may_change_them_and_no_function_of_a_frame_may():
    def may(template, where):
        found = [s for name, s in statements(template) if name == where and "JournalTable" in str(s.get("Resource"))]
        return {action.partition(":")[2] for s in found for action in listed(s["Action"])}

    needed = {"GetItem", "PutItem", "DeleteItem", "Query", "BatchWriteItem"}
    assert may(EC2, "InstanceRole") == needed
    assert may(LAMBDA, "HttpRole") | may(LAMBDA, "DecidePolicy") == needed
    assert may(LAMBDA, "DecidePolicy") == {"PutItem"}


def test_the_default_instance_type_and_its_image_fit_each_other():
    parameters = EC2["Parameters"]
    assert parameters["InstanceType"]["Default"] == DEFAULT_INSTANCE_TYPE
    assert parameters["ImageParameter"]["Default"].endswith(processor_of(DEFAULT_INSTANCE_TYPE))


@pytest.mark.parametrize(
    ("kind", "processor"),
    [
        ("t3a.small", "x86_64"),
        ("c7i.large", "x86_64"),
        ("t4g.small", "arm64"),
        ("c7gn.xlarge", "arm64"),
        ("g5.xlarge", "x86_64"),
    ],
)
def test_the_processor_of_an_instance_type_is_in_its_name(kind, processor):
    assert processor_of(kind) == processor


# --- limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_template_can_be_sent_with_the_request(name):
    assert len(templates.body(LOADED[name]).encode()) < templates.MAX_BODY_BYTES
    assert len(LOADED[name]["Resources"]) < 500


def test_throttles_stay_below_the_limits_of_the_account():
    """10,000 requests a second and a burst of 5,000 for all APIs and callbacks together; 500 new connections a second."""
    parameters = LAMBDA["Parameters"]
    for name, limit in (("ThrottleRate", 10_000), ("ThrottleBurst", 5_000), ("HttpThrottleRate", 10_000)):
        assert parameters[name]["Default"] <= parameters[name]["MaxValue"] < limit
    assert parameters["ThrottleRate"]["Default"] <= 5_000, "acks and publications need as much again"
    assert parameters["ConnectRate"]["Default"] < 500
    for stage in templates.of_type(LAMBDA, "AWS::ApiGatewayV2::Stage").values():
        settings = stage["Properties"]["DefaultRouteSettings"]
        assert {"ThrottlingRateLimit", "ThrottlingBurstLimit"} <= settings.keys()


# --- what is kept, and for how long ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_no_log_is_kept_for_ever(name):
    for log, resource in templates.of_type(LOADED[name], "AWS::Logs::LogGroup").items():
        assert "RetentionInDays" in resource["Properties"], log


def test_functions_write_to_logs_of_ours():
    for name, function in templates.of_type(LAMBDA, "AWS::Lambda::Function").items():
        assert function["Properties"]["LoggingConfig"]["LogGroup"] == {"Ref": name.replace("Function", "Log")}


def test_access_logs_name_no_query_string():
    """A client that can't set a subprotocol has its token there."""
    for stage in templates.of_type(LAMBDA, "AWS::ApiGatewayV2::Stage").values():
        line = stage["Properties"]["AccessLogSettings"]["Format"]
        assert not re.search(r"querystring|queryString|authorizer\.claims|rawPath", line)


@pytest.mark.parametrize(
    "name", ["StateTable", "JournalTable", "TokenSecret", "SchoolKeysSecret", "Key", "ArtifactBucket"]
)
def test_data_outlives_the_stack(name):
    resource = SHARED["Resources"][name]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize("name", ["StateTable", "JournalTable"])
def test_tables_are_encrypted_protected_and_recoverable(name):
    table = properties(SHARED, name)
    assert table["DeletionProtectionEnabled"] is True
    assert "PointInTimeRecoveryEnabled" in table["PointInTimeRecoverySpecification"]
    assert table["SSESpecification"]["Fn::If"][1]["SSEType"] == "KMS"


@pytest.mark.parametrize("name", ["lambda", "ec2"])
def test_stacks_that_may_go_hold_no_data(name):
    keeps = {
        "AWS::DynamoDB::Table",
        "AWS::S3::Bucket",
        "AWS::SecretsManager::Secret",
        "AWS::KMS::Key",
        "AWS::RDS::DBCluster",
    }
    held = {each["Type"] for each in LOADED[name]["Resources"].values()} & keeps
    assert held <= ({"AWS::SecretsManager::Secret"} if name == "ec2" else set()), (
        "but the cache's password, made anew with it"
    )


# --- least privilege --------------------------------------------------------------------------------------------------------

ANY_RESOURCE = {
    # a key's policy speaks of its own key only
    ("shared", "Key"),
    # these actions know no resource (service authorization reference)
    ("ec2", "cloudwatch:PutMetricData"),
    ("ec2", "elasticloadbalancing:DescribeTargetHealth"),
    ("lambda", "xray:PutTraceSegments"),
    ("lambda", "xray:PutTelemetryRecords"),
}
"""Where a statement may say `*`, and why."""

ANY_ACTION = {
    # without it nobody could ever change the key again
    ("shared", "Key", "kms:*"),
    # refused to everybody, unless over TLS
    ("shared", "ArtifactBucketPolicy", "s3:*"),
}


@pytest.mark.parametrize("name", ALL)
def test_no_statement_allows_all_of_a_service(name):
    found = {
        (name, resource, action)
        for resource, statement in statements(LOADED[name])
        for action in listed(statement.get("Action", []))
        if action == "*" or action.endswith(":*")
    }
    assert found <= ANY_ACTION


@pytest.mark.parametrize("name", ALL)
def test_no_statement_allows_all_resources(name):
    found = set()
    for resource, statement in statements(LOADED[name]):
        if "*" in listed(statement.get("Resource", [])) and (name, resource) not in ANY_RESOURCE:
            found |= {(name, action) for action in listed(statement["Action"])}
    assert found <= ANY_RESOURCE


@pytest.mark.parametrize("name", ALL)
def test_whoever_anybody_may_be_is_held_by_a_condition(name):
    for resource, statement in statements(LOADED[name]):
        if statement.get("Principal") in ("*", {"AWS": "*"}):
            assert statement["Effect"] == "Deny" or "Condition" in statement, resource


def test_each_function_has_a_role_of_its_own_that_only_lambda_takes():
    functions = templates.of_type(LAMBDA, "AWS::Lambda::Function")
    roles = [function["Properties"]["Role"]["Fn::GetAtt"][0] for function in functions.values()]
    assert sorted(set(roles)) == sorted(roles)
    for role in roles:
        trusted = properties(LAMBDA, role)["AssumeRolePolicyDocument"]["Statement"]
        assert trusted == [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ]


def test_an_instance_may_bridge_a_move_by_the_rights_of_the_functions_of_this_stage_and_no_others():
    allowed = properties(EC2, "InstanceRole")["Policies"][0]["PolicyDocument"]["Statement"]
    bridging = [each["Fn::If"][1] for each in allowed if each.get("Fn::If", [""])[0] == "HasBridge"]
    found = {
        each["Sid"]: (set(listed(each["Action"])), [r["Fn::Sub"] for r in listed(each["Resource"])])
        for each in bridging
    }
    queues = [f"{_ARN % 'sqs'}proctorwire-${{Stage}}-{name}" for name in ("sweep", "command", "views")]
    names = [properties(LAMBDA, f"{name}Queue")["QueueName"]["Fn::Sub"] for name in ("Sweep", "Command", "Views")]
    assert [arn.rpartition(":")[2] for arn in queues] == names
    assert found == {
        "BridgesAMove": (
            {*rights.RECORDS.actions, "dynamodb:BatchGetItem"},
            [_ARN % "dynamodb" + "table/${StateTable}"],
        ),
        "TellsClientsOfTheOtherSide": (
            set(rights.CONNECTIONS.actions),
            [f"{_ARN % 'execute-api'}*/${{Stage}}/{method}/@connections/*" for method in rights.CONNECTIONS.on],
        ),
        "LeavesWorkForTheOtherSide": ({"sqs:SendMessage"}, queues),
    }


_ARN = "arn:${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}:"
ARNS = {
    **{name: {"Fn::Sub": (_ARN % "dynamodb") + f"table/${{{name}}}"} for name in ("StateTable", "JournalTable")},
    **{name: {"Fn::GetAtt": [name, "Arn"]} for name in ("SweepQueue", "CommandQueue", "ViewsQueue")},
    **{name: {"Ref": name} for name in ("TokenSecretArn", "SchoolKeysSecretArn")},
    **{
        method: {"Fn::Sub": (_ARN % "execute-api") + f"${{SocketApi}}/${{Stage}}/{method}/@connections/*"}
        for method in ("POST", "DELETE")
    },
}
"""What the names of resources in `rights` are in the template."""


def test_each_function_may_do_what_is_declared_beside_its_handler_and_nothing_else():
    """In full, so that a right that is added to one was meant, and is in the other."""
    decides = properties(LAMBDA, "DecidePolicy")["PolicyDocument"]["Statement"]
    for name, function in templates.of_type(LAMBDA, "AWS::Lambda::Function").items():
        module, _, handler = function["Properties"]["Handler"].rpartition(".")
        importlib.import_module(module)
        wanted = {
            right.sid: ("Allow", sorted(right.actions), [ARNS[one] for one in right.on])
            for right in rights.DECLARED[f"{module}.{handler}"]
        }
        log = {"Fn::GetAtt": [name.replace("Function", "Log"), "Arn"]}
        wanted["ItsLog"] = ("Allow", ["logs:CreateLogStream", "logs:PutLogEvents"], [log])
        role = properties(LAMBDA, name.replace("Function", "Role"))
        [own] = role["Policies"]
        managed = decides if {"Ref": "DecidePolicy"} in role["ManagedPolicyArns"] else []
        allowed = [*own["PolicyDocument"]["Statement"], *managed]
        found = {
            each["Sid"]: (each["Effect"], sorted(listed(each["Action"])), listed(each["Resource"])) for each in allowed
        }
        assert found == wanted, name
        assert len(found) == len(allowed), f"a Sid of {name} stands twice"
        assert [arn for arn in role["ManagedPolicyArns"] if "Fn::If" not in arn] == [{"Ref": "DecidePolicy"}] * bool(
            managed
        )
        assert set().union(*allowed) == {"Sid", "Effect", "Action", "Resource"}, name


def test_tracing_is_off_unless_asked_for_and_only_then_allowed():
    assert LAMBDA["Parameters"]["Tracing"]["Default"] == "PassThrough"
    assert LAMBDA["Conditions"]["Traces"] == {"Fn::Equals": [{"Ref": "Tracing"}, "Active"]}
    only_then = {"Fn::If": ["Traces", {"Ref": "TracingPolicy"}, {"Ref": "AWS::NoValue"}]}
    for name in templates.of_type(LAMBDA, "AWS::Lambda::Function"):
        assert properties(LAMBDA, name)["TracingConfig"] == {"Mode": {"Ref": "Tracing"}}, name
        assert only_then in properties(LAMBDA, name.replace("Function", "Role"))["ManagedPolicyArns"], name
    assert LAMBDA["Resources"]["TracingPolicy"]["Condition"] == "Traces"
    traced = {name for name, each in statements(LAMBDA) if "xray:" in str(each.get("Action"))}
    assert traced == {"TracingPolicy"}


def test_the_message_function_is_told_how_much_to_log_and_who_checks_tokens_for_whom():
    variables = {
        name: properties(LAMBDA, name)["Environment"]["Variables"]
        for name in templates.of_type(LAMBDA, "AWS::Lambda::Function")
    }
    assert variables["MessageFunction"]["PROCTORWIRE_LOG_SAMPLE_RATE"] == {"Ref": "LogSampleRate"}
    checking = {name for name, each in variables.items() if "PROCTORWIRE_TOKEN_SECRET_PARAMETER" in each}
    assert checking == {
        name for name, each in variables.items() if each.get("PROCTORWIRE_AUDIENCE") == {"Ref": "Audience"}
    }


def test_no_secret_is_in_the_environment_of_a_function():
    """A function is told where a secret is, and reads it by its own right; whoever may look at a function sees no more."""
    for name, function in templates.of_type(LAMBDA, "AWS::Lambda::Function").items():
        variables = function["Properties"]["Environment"]["Variables"]
        assert not {"PROCTORWIRE_TOKEN_SECRET", "PROCTORWIRE_SCHOOL_KEYS"} & set(variables), name
        told = {variable: value for variable, value in variables.items() if "Secret" in str(value)}
        assert all(variable.endswith("_PARAMETER") and set(value) == {"Ref"} for variable, value in told.items()), name
    assert "{{resolve:" not in str(LAMBDA), "CloudFormation would put the secret itself in its place"
    assert all("Arn" in name for name in LAMBDA["Parameters"] if "Secret" in name)


def test_functions_are_called_by_their_own_api_or_rule_only():
    permissions = templates.of_type(LAMBDA, "AWS::Lambda::Permission").values()
    assert all("SourceArn" in permission["Properties"] for permission in permissions)
    called = {permission["Properties"]["FunctionName"]["Ref"] for permission in permissions}
    polled = {
        source["Properties"]["FunctionName"]["Ref"]
        for source in templates.of_type(LAMBDA, "AWS::Lambda::EventSourceMapping").values()
    }
    assert called | polled == set(templates.of_type(LAMBDA, "AWS::Lambda::Function"))


def test_the_bucket_is_nobody_elses():
    bucket = properties(SHARED, "ArtifactBucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"]["Status"] == "Enabled"


# --- watching ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lambda", "ec2"])
def test_every_alarm_reaches_somebody_and_says_what_it_means(name):
    alarms = templates.of_type(LOADED[name], "AWS::CloudWatch::Alarm")
    assert len(alarms) >= 7
    for alarm, resource in alarms.items():
        settings = resource["Properties"]
        assert settings["AlarmActions"] == [{"Ref": "AlarmTopicArn"}], alarm
        assert len(settings["AlarmDescription"]) > 20, alarm
        assert "TreatMissingData" in settings, alarm


@pytest.mark.parametrize("shards", [1, 2, 5, 8])
def test_the_alarms_of_the_cache_look_at_every_shard(shards):
    """By the names that ElastiCache gives nodes: GROUP-001 of one shard, GROUP-0001-001 in cluster mode."""
    given = {"CacheNodeType": "cache.t4g.micro", "CacheShards": str(shards), "Stage": "prod"}
    values = {name: str(each.get("Default", "")) for name, each in EC2["Parameters"].items()} | given

    def resolved(value):
        if isinstance(value, list):
            return [one for each in value if (one := resolved(each)) != {"Ref": "AWS::NoValue"}]
        if isinstance(value, dict) and "Fn::If" in value:
            condition, then, otherwise = value["Fn::If"]
            return resolved(then if evaluate(EC2["Conditions"][condition], EC2, values) else otherwise)
        if isinstance(value, dict) and "Fn::Sub" in value and isinstance(value["Fn::Sub"], str):
            return value["Fn::Sub"].replace("${Stage}", "prod").replace("${Shards}", "proctorwire-prod-shards")
        return {name: resolved(each) for name, each in value.items()} if isinstance(value, dict) else value

    for alarm, node in (("CacheMemoryAlarm", "001"), ("CacheCpuAlarm", "001"), ("CacheLagAlarm", "002")):
        looked_at = [
            query["MetricStat"]["Metric"]["Dimensions"][0]["Value"]
            for query in resolved(properties(EC2, alarm)["Metrics"])
            if "MetricStat" in query
        ]
        of_shards = [f"proctorwire-prod-shards-{number:04}-{node}" for number in range(1, shards + 1)]
        assert looked_at == ([f"proctorwire-prod-{node}"] if shards == 1 else of_shards), alarm
    made = {
        name
        for name, each in EC2["Resources"].items()
        if each["Type"].startswith("AWS::ElastiCache::") and evaluate(EC2["Conditions"][each["Condition"]], EC2, values)
    }
    assert ("Cache" in made, "Shards" in made) == (shards == 1, shards > 1)
    assert ("CacheParameters" in made, "ShardedParameters" in made) == (shards == 1, shards > 1)
    assert resolved(EC2["Outputs"]["CacheEndpoint"]["Value"])["Fn::GetAtt"][0] in made


def test_a_cache_in_cluster_mode_has_its_parameters_and_keeps_its_nodes():
    cache, sharded = properties(EC2, "Cache"), properties(EC2, "Shards")
    differ = {"ReplicationGroupId", "CacheParameterGroupName", "AutomaticFailoverEnabled"}
    shape = {"NumCacheClusters", "NumNodeGroups", "ReplicasPerNodeGroup"}
    assert {name for name in cache.keys() | sharded.keys() if cache.get(name) != sharded.get(name)} == differ | shape
    alone, several = (properties(EC2, f"{name}Parameters")["Properties"] for name in ("Cache", "Sharded"))
    assert several == alone | {"cluster-enabled": "yes"}
    nodes = EC2["Parameters"]["CacheNodes"]
    counts = {name: each["Count"] for name, each in EC2["Mappings"]["Replicas"].items()}
    assert counts == {str(n): n - 1 for n in range(nodes["MinValue"], nodes["MaxValue"] + 1)}
    assert EC2["Resources"]["Shards"]["UpdatePolicy"] == {"UseOnlineResharding": True}


def test_yaml_that_says_a_thing_twice_is_refused():
    with pytest.raises(Exception, match="Key stands twice"):
        templates.parse("Key: 1\nKey: 2\n")
