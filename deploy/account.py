"""An AWS account and region: the clients of the command, and what is wrong with credentials in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

_FIX = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile"
_REFUSED = frozenset(("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"))


class AccountError(Exception):
    """AWS can't be used as it is set up here; the message is one line and says what to do."""


class Account:
    """Clients by the name of their service, made when they are wanted."""

    def __init__(self, region: str, profile: str | None = None, session: Any = None) -> None:
        self.region = region
        try:
            self._session = session or boto3.Session(profile_name=profile, region_name=region)
        except ProfileNotFound as error:
            raise AccountError(f"--profile: there is no profile {profile!r} in ~/.aws/config") from error
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A client of a service in this region."""
        if service not in self._clients:
            settings = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=5, read_timeout=30)
            self._clients[service] = self._session.client(service, region_name=self.region, config=settings)
        return self._clients[service]

    def number(self) -> str:
        """The account's number: the first call, which shows whether the credentials are any good. Raises AccountError."""
        with reaching():
            number: str = self.client("sts").get_caller_identity()["Account"]
            return number


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Around calls of AWS: what the user can mend becomes AccountError."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AccountError(f"no AWS credentials: {_FIX}") from error
    except (TokenRetrievalError, UnauthorizedSSOTokenError) as error:
        raise AccountError("the AWS sign-in has expired: run `aws sso login`") from error
    except EndpointConnectionError as error:
        raise AccountError(f"AWS can't be reached (is --region right?): {error}") from error
    except ClientError as error:
        detail = error.response["Error"]
        code = detail.get("Code", "")
        if code in _REFUSED:
            raise AccountError(f"AWS does not take these credentials ({code}): {_FIX}") from error
        raise AccountError(f"AWS refused {error.operation_name}: {code}: {detail.get('Message', '')}") from error
    except BotoCoreError as error:
        raise AccountError(f"AWS: {error}") from error
