"""What a deployment is told, and what one stack takes from another."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from deploy.names import Mode

_FROM_SHARED: dict[Mode, tuple[str, ...]] = {
    "lambda": ("StateTable", "JournalTable", "TokenSecretArn", "SchoolKeysSecretArn", "AlarmTopicArn", "KeyArn"),
    "ec2": ("JournalTable", "TokenSecretArn", "SchoolKeysSecretArn", "AlarmTopicArn", "KeyArn"),
}


def shared_outputs(mode: Mode, outputs: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a mode's stack that are outputs of the shared one."""
    return {name: outputs[name] for name in _FROM_SHARED[mode]}


def new_school_key() -> str:
    """A key for a school."""
    return secrets.token_urlsafe(32)
