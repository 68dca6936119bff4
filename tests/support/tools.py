"""Programs that tests need and pip can't install. Where they are missing a developer's tests are skipped; CI's fail."""

from __future__ import annotations

import os
import shutil

import pytest


def program(*names: str, package: str) -> str:
    """The path of the first of these programs; without any, skip, or fail where `CI` is set."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    missing(f"needs {names[0]}; on Debian: apt-get install {package}")
    raise AssertionError("missing() does not return")


def missing(what: str) -> None:
    """Skip the test, or fail it where `CI` is set: CI installs what it needs."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
