"""What the stacks of a stage are called."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["lambda", "ec2"]
MODES: tuple[Mode, ...] = ("lambda", "ec2")
Part: TypeAlias = Literal["shared", "lambda", "ec2"]
STAGE = re.compile(r"[a-z][a-z0-9-]{0,15}")


def stack_name(stage: str, part: Part) -> str:
    """The name of one of a stage's stacks."""
    return f"proctorwire-{stage}-{part}"
