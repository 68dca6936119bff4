"""Handlers for the tests of the emulated gateway; what each does is chosen by the message or the query."""

import json
import os
import subprocess
import sys
import time

import boto3_free_client

counter = 0
seen = []


def authorize(event, context):
    query = event.get("queryStringParameters", {})
    token = query.get("token", "ok")
    if token == "unauthorized":
        raise Exception("Unauthorized")
    if token == "crash":
        raise ValueError("bug")
    if token == "nobody":
        return {"policyDocument": _policy("Allow", event["methodArn"])}
    if token == "nested":
        return {"principalId": "u", "policyDocument": _policy("Allow", "*"), "context": {"a": {"b": 1}}}
    if token == "huge":
        return {"principalId": "u", "policyDocument": _policy("Allow", "*"), "context": {"a": "x" * 9000}}
    effect = "Deny" if token == "deny" else "Allow"
    resource = event["methodArn"] if token != "other" else "arn:aws:execute-api:r:1:other/live/$connect"
    return {
        "principalId": "user-1",
        "policyDocument": _policy(effect, resource),
        "context": {"school": "s1", "level": 3, "proctor": True},
    }


def _policy(effect, resource):
    return {
        "Version": "2012-10-17",
        "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}],
    }


def connect(event, context):
    query = event.get("queryStringParameters", {})
    _record(event)
    if "status" in query:
        return {"statusCode": int(query["status"])}
    if "raise" in query:
        raise RuntimeError("no")
    if "sleep" in query:
        time.sleep(float(query["sleep"]))
    if "post" in query:
        status = _post(event, b"too early")
        print("posted inside $connect:", status)
    response = {"statusCode": 200}
    protocols = {name.lower(): value for name, value in event["headers"].items()}.get("sec-websocket-protocol", "")
    if protocols:
        response["headers"] = {"Sec-WebSocket-Protocol": protocols.split(",")[0].strip()}
    return response


def disconnect(event, context):
    _record(event)
    return {"statusCode": 200}


def message(event, context):
    """Do what `data` says: echo the event, sleep, raise, exit, count, post."""
    global counter
    counter += 1
    try:
        data = json.loads(event.get("body", "")).get("data", {})
    except (ValueError, AttributeError):
        data = {}
    if "sleep" in data:
        time.sleep(data["sleep"])
    if "burn" in data:
        until = time.process_time() + data["burn"]
        while time.process_time() < until:
            pass
    if "print" in data:
        print(data["print"])
    if "raise" in data:
        raise RuntimeError(data["raise"])
    if "exit" in data:
        os._exit(3)
    if "return" in data:
        return data["return"]
    if "spawn" in data:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        _post(event, json.dumps({"spawned": child.pid}).encode())
        return {"statusCode": 200}
    answer = {"event": event, "pid": os.getpid(), "counter": counter, "context": _context(context)}
    if data.get("post", True):
        answer["environ"] = dict(os.environ)
        _post(event, json.dumps(answer).encode())
    return {"statusCode": 200, "body": "reply body"}


def quiet(event, context):
    return {"statusCode": 200}


def reply(event, context):
    return {"statusCode": 200, "body": json.dumps({"reply": event.get("body")})}


def queue(event, context):
    failures = []
    for record in event["Records"]:
        print("record", json.dumps(record))
        if record["body"] == "raise":
            raise RuntimeError("batch")
        if record["body"] == "fail" and record["attributes"]["ApproximateReceiveCount"] == "1":
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def scheduled(event, context):
    print("scheduled", json.dumps(event))


def _record(event):
    print("event", json.dumps(event))


def _context(context):
    return {
        "function_name": context.function_name,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "invoked_function_arn": context.invoked_function_arn,
        "aws_request_id": context.aws_request_id,
        "remaining": context.get_remaining_time_in_millis(),
    }


def _post(event, data):
    return boto3_free_client.post(os.environ["MANAGEMENT_URL"], event["requestContext"]["connectionId"], data)
