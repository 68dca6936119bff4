"""Where the behaviour suite runs: our emulated gateway, two emulators that we did not write, and AWS itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from adapters.lambda_apigw.local.ministack import MiniStack
from adapters.lambda_apigw.local.service import LocalGateway
from adapters.lambda_apigw.local.settings import Authorizer, Function, GatewaySettings, Limits

HERE = Path(__file__).parent
REGION = "ap-southeast-1"
ROUTES = ("echo", "two-way")


@dataclass
class Peer:
    """A deployed API: `index.main` behind `$connect`, `$disconnect`, `$default`, `echo` and, with a route response, `two-way`."""

    name: str
    url: str
    management_url: str
    bare_url: str = ""
    """The same functions without a `$default` route, where a peer can have a second API."""

    scaled_url: str = ""
    """The same API with the quotas of time that stand below, if `url` has AWS's."""

    credentials: dict[str, str] = field(
        default_factory=lambda: {"aws_access_key_id": "AKIDLOCAL", "aws_secret_access_key": "local-secret"}
    )
    idle_seconds: float = 0.0
    """After which an idle connection is closed, and how old one may get; 0 where the clock can't be scaled."""

    hard_seconds: float = 0.0
    patience_seconds: float = 3.0
    """How long to wait for what comes at once; little where it is known not to come."""


@contextlib.asynccontextmanager
async def ours() -> AsyncIterator[Peer]:
    def settings(**more: Any) -> GatewaySettings:
        function = {"task_root": str(HERE), "env": {"MANAGEMENT_URL": "{management_url}"}, "timeout_seconds": 10.0}
        return GatewaySettings(
            functions={
                "main": Function(handler="index:main", **function),  # type: ignore[arg-type]
                "auth": Function(handler="index:authorize", **function),  # type: ignore[arg-type]
            },
            authorizer=Authorizer(function="auth", identity_sources=("route.request.querystring.token",)),
            **more,
        )

    routes = dict.fromkeys(("$connect", "$disconnect", *ROUTES), "main")
    full = settings(routes={**routes, "$default": "main"}, route_responses=("two-way",))
    limits = Limits(idle_seconds=0.6, duration_seconds=1.5)
    scaled = settings(routes={**routes, "$default": "main"}, limits=limits)
    async with (
        LocalGateway(full) as gateway,
        LocalGateway(settings(routes=routes)) as bare,
        LocalGateway(scaled) as aging,
    ):
        yield Peer(
            "ours",
            gateway.websocket_url,
            gateway.management_url,
            bare.websocket_url,
            aging.websocket_url,
            idle_seconds=limits.idle_seconds,
            hard_seconds=limits.duration_seconds,
        )


def template(*, route_responses: bool, management_url: Any = "") -> dict[str, Any]:
    """A CloudFormation template of two APIs. `management_url` goes into the functions' environment."""

    def api(prefix: str, keys: tuple[str, ...]) -> dict[str, Any]:
        ref = {"Ref": f"{prefix}Api"}
        resources: dict[str, Any] = {
            f"{prefix}Api": {
                "Type": "AWS::ApiGatewayV2::Api",
                "Properties": {
                    "Name": {"Fn::Sub": f"${{AWS::StackName}}-{prefix.lower()}"},
                    "ProtocolType": "WEBSOCKET",
                    "RouteSelectionExpression": "$request.body.action",
                },
            },
            f"{prefix}Integration": {
                "Type": "AWS::ApiGatewayV2::Integration",
                "Properties": {"ApiId": ref, "IntegrationType": "AWS_PROXY", "IntegrationUri": _invoke_arn("Main")},
            },
            f"{prefix}Authorizer": {
                "Type": "AWS::ApiGatewayV2::Authorizer",
                "Properties": {
                    "ApiId": ref,
                    "Name": "auth",
                    "AuthorizerType": "REQUEST",
                    "AuthorizerUri": _invoke_arn("Auth"),
                    "IdentitySource": ["route.request.querystring.token"],
                },
            },
            f"{prefix}Stage": {
                "Type": "AWS::ApiGatewayV2::Stage",
                "Properties": {"ApiId": ref, "StageName": "live", "AutoDeploy": True},
            },
        }
        for number, key in enumerate(keys):
            route: dict[str, Any] = {
                "ApiId": ref,
                "RouteKey": key,
                "Target": {"Fn::Sub": f"integrations/${{{prefix}Integration}}"},
            }
            if key == "$connect":
                route |= {"AuthorizationType": "CUSTOM", "AuthorizerId": {"Ref": f"{prefix}Authorizer"}}
            if key == "two-way":
                route["RouteResponseSelectionExpression"] = "$default"
                if route_responses:
                    resources[f"{prefix}Response"] = {
                        "Type": "AWS::ApiGatewayV2::RouteResponse",
                        "Properties": {
                            "ApiId": ref,
                            "RouteId": {"Ref": f"{prefix}Route{number}"},
                            "RouteResponseKey": "$default",
                        },
                    }
            resources[f"{prefix}Route{number}"] = {"Type": "AWS::ApiGatewayV2::Route", "Properties": route}
        return resources

    def function(handler: str) -> dict[str, Any]:
        properties = {
            "Handler": f"index.{handler}",
            "Runtime": "python3.13",
            "MemorySize": 512,
            "Timeout": 10,
            "Role": {"Fn::GetAtt": ["Role", "Arn"]},
            "Code": {"ZipFile": (HERE / "index.py").read_text()},
        }
        if management_url:
            properties["Environment"] = {"Variables": {"MANAGEMENT_URL": management_url}}
        return {"Type": "AWS::Lambda::Function", "Properties": properties}

    def permission(name: str) -> dict[str, Any]:
        return {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Ref": name},
                "Action": "lambda:InvokeFunction",
                "Principal": "apigateway.amazonaws.com",
            },
        }

    keys = ("$connect", "$disconnect", *ROUTES)
    manage = {
        "Effect": "Allow",
        "Action": ["execute-api:ManageConnections", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": "*",
    }
    assume = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [assume]},
                    "Policies": [
                        {"PolicyName": "own", "PolicyDocument": {"Version": "2012-10-17", "Statement": [manage]}}
                    ],
                },
            },
            "Main": function("main"),
            "Auth": function("authorize"),
            "MainPermission": permission("Main"),
            "AuthPermission": permission("Auth"),
            **api("Full", (*keys, "$default")),
            **api("Bare", keys),
        },
        "Outputs": {"Full": {"Value": {"Ref": "FullApi"}}, "Bare": {"Value": {"Ref": "BareApi"}}},
    }


def _invoke_arn(name: str) -> dict[str, str]:
    path = f"2015-03-31/functions/${{{name}.Arn}}/invocations"
    return {"Fn::Sub": f"arn:${{AWS::Partition}}:apigateway:${{AWS::Region}}:lambda:path/{path}"}


def _new_name() -> str:
    return f"behaviours-{uuid.uuid4().hex[:8]}"


def _deployed(client: Any, name: str, body: dict[str, Any]) -> dict[str, str]:
    """Create a stack; its outputs."""
    client.create_stack(StackName=name, TemplateBody=json.dumps(body), Capabilities=["CAPABILITY_IAM"])
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    outputs = client.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


@contextlib.asynccontextmanager
async def ministack() -> AsyncIterator[Peer]:
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    async with MiniStack(region=REGION) as server:
        endpoint = server.endpoint_url
        client = boto3.client("cloudformation", endpoint_url=endpoint, region_name=REGION, **credentials)
        body = template(
            route_responses=False, management_url={"Fn::Sub": f"{endpoint}/_aws/execute-api/${{FullApi}}/live"}
        )
        outputs = await asyncio.to_thread(_deployed, client, _new_name(), body)
        client.close()
        socket_url = endpoint.replace("http", "ws", 1)
        yield Peer(
            "ministack",
            f"{socket_url}/_aws/execute-api/{outputs['Full']}/live",
            f"{endpoint}/_aws/execute-api/{outputs['Full']}/live",
            f"{socket_url}/_aws/execute-api/{outputs['Bare']}/live",
            credentials=credentials,
            patience_seconds=0.5,
        )


@contextlib.asynccontextmanager
async def aws(session: Any = None) -> AsyncIterator[Peer]:
    """The account that the environment's credentials belong to. Everything is deleted at the end, also what could not be
    made whole; it costs less than a cent. Raises `AccountMissing`.
    """
    session = session or account()
    client, name = session.client("cloudformation"), _new_name()
    try:
        outputs = await asyncio.to_thread(_deployed, client, name, template(route_responses=True))
        region, found = session.region_name, session.get_credentials().get_frozen_credentials()
        host = f"execute-api.{region}.amazonaws.com/live"
        credentials = {
            "aws_access_key_id": found.access_key,
            "aws_secret_access_key": found.secret_key,
            **({"aws_session_token": found.token} if found.token else {}),
        }
        full, bare = (f"{outputs[key]}.{host}" for key in ("Full", "Bare"))
        yield Peer("aws", f"wss://{full}", f"https://{full}", f"wss://{bare}", credentials=credentials)
    finally:
        await asyncio.to_thread(client.delete_stack, StackName=name)


class AccountMissing(Exception):
    """There is no account to run on; the message is one line for the user."""


def account(session: Any = None) -> Any:
    """A session of an account that answers. Raises `AccountMissing`, which says what is needed."""
    session = session or boto3.Session()
    if not session.region_name:
        raise AccountMissing("--on aws needs a region: set AWS_DEFAULT_REGION, or `region` in your AWS profile")
    if session.get_credentials() is None:
        raise AccountMissing(
            "--on aws needs credentials of an account, which may make a CloudFormation stack with an IAM role, Lambda functions "
            "and WebSocket APIs: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret"
        )
    try:
        session.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise AccountMissing(f"--on aws: {session.region_name} does not take these credentials: {error}") from error
    return session


class NpmMissing(Exception):
    """The peer can't be installed here; the message is one line for the user."""


@contextlib.asynccontextmanager
async def serverless_offline(folder: Path) -> AsyncIterator[Peer]:
    """osls with serverless-offline, from `folder`, where `make peers` keeps their 136 MB."""
    node = shutil.which("node")
    command = folder / "node_modules/osls/bin/serverless.js"
    if node is None or not command.exists():
        raise NpmMissing("osls and serverless-offline are not installed: run `make peers`, which needs npm and node 20")
    ports = [_free_port() for _ in range(3)]
    management = f"http://127.0.0.1:{ports[1]}"
    websocket = [
        {
            "websocket": {
                "route": "$connect",
                "authorizer": {"name": "auth", "identitySource": ["route.request.querystring.token"]},
            }
        },
        {"websocket": "$disconnect"},
        {"websocket": "$default"},
        {"websocket": "echo"},
        {"websocket": {"route": "two-way", "routeResponseSelectionExpression": "$default"}},
    ]
    service = {
        "service": "behaviours",
        "frameworkVersion": "4",
        "provider": {
            "name": "aws",
            "runtime": "python3.11",
            "stage": "live",
            "region": REGION,
            "timeout": 3,
            "environment": {"MANAGEMENT_URL": management},
            "websocketsApiRouteSelectionExpression": "$request.body.action",
        },
        "functions": {"main": {"handler": "index.main", "events": websocket}, "auth": {"handler": "index.authorize"}},
        "plugins": ["serverless-offline"],
        "custom": {
            "serverless-offline": {
                "httpPort": ports[0],
                "websocketPort": ports[1],
                "lambdaPort": ports[2],
                "noPrependStageInUrl": True,
                "webSocketIdleTimeout": 5,
                "webSocketHardTimeout": 9,
            }
        },
    }
    (folder / "serverless.yml").write_text(json.dumps(service))  # YAML reads JSON
    shutil.copy(HERE / "index.py", folder)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "VIRTUAL_ENV": sys.prefix,
        "AWS_ACCESS_KEY_ID": "AKIDLOCAL",
        "AWS_SECRET_ACCESS_KEY": "local-secret",
        "AWS_DEFAULT_REGION": REGION,
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }
    with (folder / "offline.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            node,
            str(command),
            "offline",
            "start",
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            if process.returncode is not None or b"websocket] listening" in (folder / "offline.log").read_bytes():
                break
            await asyncio.sleep(0.1)
        else:
            raise NpmMissing(f"serverless-offline did not start; see {folder / 'offline.log'}")
        if process.returncode is not None:
            raise NpmMissing(f"serverless-offline ended at once; see {folder / 'offline.log'}")
        yield Peer(
            "offline", f"ws://127.0.0.1:{ports[1]}/", management, idle_seconds=5, hard_seconds=9, patience_seconds=0.5
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
