"""What an operator tells a deployment on Lambda, through its state table: revocations. Used by commands, by no function."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import boto3
from botocore.exceptions import BotoCoreError

from adapters.lambda_apigw.aws_http import AwsError, Credentials, DynamoDb, Session
from adapters.lambda_apigw.subscriptions import DynamoSubscriptions
from core.revocation import ListedRevocation, Revocation

_SECONDS = 20.0


class AdminError(Exception):
    """What was asked for can't be done; the message says why and what to do."""


class Admin:
    """The revocations in one state table."""

    def __init__(self, subscriptions: DynamoSubscriptions, table: str) -> None:
        self._subscriptions = subscriptions
        self._table = table

    def revoke(self, revocation: Revocation, hours: float) -> None:
        """Let tokens count no more: at the next connect, and for sockets that are open at the next sweep. Raises AdminError."""
        with self._reaching():
            self._subscriptions.revoke(revocation, hours * 3_600)

    def allow(self, revocation: Revocation) -> bool:
        """Take a revocation back; whether there was one. Raises AdminError."""
        with self._reaching():
            return self._subscriptions.allow(revocation)

    def revocations(self, school: str) -> list[ListedRevocation]:
        """Those of a school that are in force, the first to end first. Raises AdminError."""
        with self._reaching():
            found = [*self._subscriptions.revocations(school, "student").items()]
            found += self._subscriptions.revocations(school, "proctor").items()
        return sorted((ListedRevocation(*one) for one in found), key=lambda one: one.until)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                raise AdminError(
                    f"--table: there is no table {self._table} in this account and region; "
                    "`deploy status --stage STAGE --json` names that of a stage"
                ) from error
            raise AdminError(f"DynamoDB: {error}") from error
        except OSError as error:
            raise AdminError(f"DynamoDB can't be reached: {error}") from error


@contextlib.contextmanager
def connect(table: str, region: str = "", profile: str = "") -> Iterator[Admin]:
    """The admin of a state table, with the credentials, region and endpoint that boto3 finds. Raises AdminError."""
    try:
        found = boto3.Session(profile_name=profile or None, region_name=region or None)
        credentials = found.get_credentials()
        if not found.region_name:
            raise AdminError("no region: give --region, or AWS_REGION")
        if credentials is None:
            raise AdminError("no AWS credentials: give --profile, or set them up with `aws configure`")
        frozen = credentials.get_frozen_credentials()
        url = found.client("dynamodb").meta.endpoint_url
    except BotoCoreError as error:
        raise AdminError(str(error)) from error
    with Session(Credentials(frozen.access_key, frozen.secret_key, frozen.token or ""), found.region_name) as session:
        session.begin(_SECONDS)
        yield Admin(DynamoSubscriptions(DynamoDb(session.client("dynamodb", url)), table, time.time), table)
