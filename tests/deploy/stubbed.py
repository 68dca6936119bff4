"""An account whose answers are written down beforehand, checked against botocore's own models."""

from __future__ import annotations

import boto3
from botocore.stub import Stubber

from deploy.account import Account


class StubbedAccount(Account):
    """`answers(service)` is the Stubber of a service's client."""

    def __init__(self, region="ap-southeast-1"):
        session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=region)
        super().__init__(region, session=session)
        self._stubs = {}

    def answers(self, service):
        if service not in self._stubs:
            self._stubs[service] = Stubber(self.client(service))
            self._stubs[service].activate()
        return self._stubs[service]

    def is_known(self, number="123456789012"):
        identity = {"Account": number, "UserId": "AIDA", "Arn": f"arn:aws:iam::{number}:user/u"}
        self.answers("sts").add_response("get_caller_identity", identity)
        return self

    def has_no_stack(self, times=3):
        for _ in range(times):
            message = "Stack with id x does not exist"
            self.answers("cloudformation").add_client_error("describe_stacks", "ValidationError", message, 400)
        return self
