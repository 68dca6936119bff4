"""The rehearsal: real stacks on the emulated AWS, with each request of a function checked against its role."""

from __future__ import annotations

import pytest

from deploy import rehearse, templates


def test_a_deployment_lives_through_create_talk_update_and_delete(monkeypatch):
    monkeypatch.setattr(rehearse, "rehearse_fleet", lambda say: say("the fleet"))  # test_fleet plays it
    told = []
    rehearse.rehearse(told.append)
    story = "\n".join(told)
    for line in (
        "all 72 resources are there",
        "the student gets the proctor's warning",
        "a sweep shows the student offline",
        "update to 512 MB",
        "shown through the queue of views",
        "the same deployment again: no change",
        "grown to a cache, a third zone, scheduled scaling",
        "a cache with three shards took the place",
        "journal: kept",
        "the fleet",
    ):
        assert line in story


def test_a_right_that_is_missing_fails_and_is_named(monkeypatch):
    load = templates.load

    def without_query(name):
        template = load(name)
        if name == "lambda":
            policy = template["Resources"]["DecidePolicy"]["Properties"]["PolicyDocument"]["Statement"]
            policy[0]["Action"].remove("dynamodb:Query")
        return template

    monkeypatch.setattr(rehearse.templates, "load", without_query)
    with pytest.raises(rehearse.RehearsalError, match=r"not authorized to perform: dynamodb:Query"):
        rehearse.rehearse(lambda _: None, ["lambda"])
