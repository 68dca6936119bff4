"""What all tests share: the mark `no_cover` holds in the processes of pytest-xdist, too.

There pytest-cov 7 measures twice and its own pause stops only one of the two, so that the marked tests, whose tracing takes three
quarters of their time, were traced all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("no_cover") is None:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
