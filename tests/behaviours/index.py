"""The functions that the behaviour suite deploys to each peer: they do what a message says, and tell an observer what they saw.

One file without imports of ours, below 4,096 characters, so that a template can carry it inline.
"""

import json
import os
import time

CLIENTS = []


def management(context):
    if not CLIENTS:
        import boto3
        from botocore.config import Config

        url = os.environ.get("MANAGEMENT_URL") or f"https://{context['domainName']}/{context['stage']}"
        once = Config(retries={"total_max_attempts": 1})
        CLIENTS.append(boto3.client("apigatewaymanagementapi", endpoint_url=url, config=once))
    return CLIENTS[0]


def post(context, connection, value):
    """The status of a post."""
    try:
        data = json.dumps(value).encode()
        return management(context).post_to_connection(ConnectionId=connection, Data=data)["ResponseMetadata"][
            "HTTPStatusCode"
        ]
    except Exception as error:
        return getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", repr(error))


def authorize(event, context):
    query = event.get("queryStringParameters") or {}
    token = query.get("token")
    if token == "unauthorized":
        raise Exception("Unauthorized")
    if token == "crash":
        raise ValueError("a bug")
    effect = "Deny" if token == "deny" else "Allow"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
    return {
        "principalId": "user-1",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"observer": query.get("observer", ""), "number": 3, "flag": True},
    }


def main(event, context):
    about = event["requestContext"]
    kind = about["eventType"]
    if kind == "MESSAGE":
        return message(event, about)
    query = event.get("queryStringParameters") or {}
    observer = query.get("observer") or (about.get("authorizer") or {}).get("observer")
    seen = {"saw": kind, "event": event}
    if query.get("do") == "post":
        seen["status"] = post(about, about["connectionId"], "too early")
    if observer:
        post(about, observer, seen)
    if query.get("do") == "throw":
        raise RuntimeError("no")
    answer = {"statusCode": int(query.get("status", 200))}
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if kind == "CONNECT" and "sec-websocket-protocol" in headers:
        answer["headers"] = {"Sec-WebSocket-Protocol": headers["sec-websocket-protocol"].split(",")[0].strip()}
    return answer


def message(event, about):
    try:
        wanted = json.loads(event.get("body") or "{}")
    except ValueError:
        wanted = {}
    what = wanted.get("do", "tell") if isinstance(wanted, dict) else "tell"
    if what == "throw":
        raise RuntimeError("a bug in the function")
    if what == "sleep":
        time.sleep(wanted["seconds"])
    if what != "body":
        body = event.get("body") or ""
        if len(body) > 5000:
            event = {**event, "body": len(body)}
        post(about, about["connectionId"], {"saw": "MESSAGE", "event": event})
    return {"statusCode": 200, "body": '{"saw": "the body"}'}
