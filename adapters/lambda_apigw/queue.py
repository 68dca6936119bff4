"""Work for later invocations, in SQS queues, one a kind.

It is delivered at least once, in any order: whoever receives it must stand that.
"""

from __future__ import annotations

import math

import msgspec

from adapters.lambda_apigw.aws_http import Client
from adapters.lambda_apigw.ports import CommandChunk, SweepTicket, Views

_MAX_DELAY_SECONDS = 900
_encode = msgspec.json.Encoder().encode
_sweeps = msgspec.json.Decoder(SweepTicket)
_commands = msgspec.json.Decoder(CommandChunk)
_views = msgspec.json.Decoder(Views)


class SqsQueue:
    """`Queue` over SQS."""

    def __init__(self, client: Client, sweep_url: str, command_url: str, views_url: str = "") -> None:
        self._client = client
        self._sweep_url = sweep_url
        self._command_url = command_url
        self._views_url = views_url

    def sweep(self, ticket: SweepTicket, delay_seconds: float) -> None:
        """Bring this ticket to the sweep after the delay, in whole seconds as SQS counts."""
        self._send(self._sweep_url, _encode(ticket), delay_seconds)

    def command(self, chunk: CommandChunk) -> None:
        """Have this part of a command carried out."""
        self._send(self._command_url, _encode(chunk), 0)

    def publish(self, views: Views) -> None:
        """Have these views published with the next batch."""
        self._send(self._views_url, _encode(views), 0)

    def _send(self, url: str, body: bytes, delay_seconds: float) -> None:
        delay = min(math.ceil(delay_seconds), _MAX_DELAY_SECONDS)
        self._client.call(
            "AmazonSQS.SendMessage", {"QueueUrl": url, "MessageBody": body.decode(), "DelaySeconds": delay}, "sqs"
        )


def read_sweep(body: str) -> SweepTicket:
    """The ticket in a message. Raises `msgspec.MsgspecError` if there is none."""
    return _sweeps.decode(body)


def read_command(body: str) -> CommandChunk:
    """The part of a command in a message. Raises `msgspec.MsgspecError` if there is none."""
    return _commands.decode(body)


def read_views(body: str) -> Views:
    """The views in a message. Raises `msgspec.MsgspecError` if there are none."""
    return _views.decode(body)
