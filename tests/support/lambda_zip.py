"""The zip of the Lambda functions, made once for all tests that need one: pip and the compiler take seconds."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from deploy.package import Architecture, Artifact, build_lambda


@functools.cache
def lambda_zip(architecture: Architecture) -> Artifact:
    """Ours, as it stands; removed with the session."""
    return build_lambda(Path(_folder().name), architecture)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="proctorwire-zip-")
