"""A fleet behind a balancer: nobody notices that an instance goes, and the rehearsal would notice if somebody did."""

from __future__ import annotations

import os
import signal

import pytest

from deploy import fleet


def test_an_instance_goes_and_nobody_notices():
    """In network namespaces where they are allowed."""
    told = []
    fleet.rehearse_fleet(told.append, students=8)
    story = "\n".join(told)
    assert "both instances are healthy" in story
    assert "the third instance is healthy" in story
    assert "4 students moved, 0 were cut off" in story
    assert "the proctor saw nobody reconnect or go offline" in story


def test_an_instance_that_is_killed_instead_is_found_out(monkeypatch):
    """On loopback addresses, as whoever is not root has it."""
    monkeypatch.setattr(fleet._Instance, "_stop", lambda self: os.kill(self._server_pid, signal.SIGKILL))
    with pytest.raises(fleet.FleetError, match="the drained server ended with -9"):
        fleet.rehearse_fleet(lambda _: None, students=4, isolated=False)
