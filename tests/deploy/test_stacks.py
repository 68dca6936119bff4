"""Stacks by change set, where CloudFormation says no: what is told, and what is done about it."""

from __future__ import annotations

import datetime

import pytest
from botocore.stub import ANY
from stubbed import StubbedAccount

from deploy import stacks as under_test
from deploy import templates
from deploy.stacks import ChangeSet, StackError, Stacks

NAME = "proctorwire-prod-lambda"
TEMPLATE = {
    "Parameters": {"Stage": {"Type": "String"}, "MemoryMb": {"Type": "Number"}, "New": {"Type": "String"}},
    "Resources": {},
}
ID = "arn:aws:cloudformation:ap-southeast-1:123456789012:changeSet/proctorwire-deploy/1"
NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)


@pytest.fixture
def answers():
    account = StubbedAccount()
    stubber = account.answers("cloudformation")
    stubber.stacks = Stacks(account.client("cloudformation"), sleep=lambda _: None)
    yield stubber
    stubber.assert_no_pending_responses()


def describes(answers, status, name=NAME, **more):
    stack = {
        "StackName": name,
        "StackStatus": status,
        "CreationTime": NOW,
        "StackId": f"arn:aws:cloudformation:r:1:stack/{name}/1",
    }
    answers.add_response("describe_stacks", {"Stacks": [stack | more]})


def is_missing(answers):
    answers.add_client_error("describe_stacks", "ValidationError", f"Stack with id {NAME} does not exist", 400)


def happens(answers, *events):
    found = [
        {
            "StackId": "s",
            "StackName": NAME,
            "EventId": f"{resource}-{status}",
            "LogicalResourceId": resource,
            "ResourceType": "AWS::Lambda::Function",
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
            "Timestamp": NOW,
        }
        for resource, status, reason in events
    ]
    answers.add_response("describe_stack_events", {"StackEvents": found[::-1]})


def has_no_change_set_left(answers):
    answers.add_client_error("delete_change_set", "ChangeSetNotFound", "none", 404)


def test_a_new_stack_is_planned_with_the_parameters_that_are_given(answers):
    is_missing(answers)
    has_no_change_set_left(answers)
    expected = {
        "StackName": NAME,
        "ChangeSetName": "proctorwire-deploy",
        "ChangeSetType": "CREATE",
        "TemplateBody": templates.body(TEMPLATE),
        "Parameters": [{"ParameterKey": "Stage", "ParameterValue": "prod"}],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        "Tags": [{"Key": "proctorwire-stage", "Value": "prod"}],
    }
    answers.add_response("create_change_set", {"Id": ID}, expected)
    answers.add_response("describe_change_set", {"Status": "CREATE_IN_PROGRESS"})
    resource = {"Action": "Add", "LogicalResourceId": "Queue", "ResourceType": "AWS::SQS::Queue"}
    page = {
        "Status": "CREATE_COMPLETE",
        "Changes": [{"Type": "Resource", "ResourceChange": resource}],
        "NextToken": "2",
    }
    answers.add_response("describe_change_set", page)
    other = resource | {"LogicalResourceId": "Other", "Action": "Modify", "Replacement": "True"}
    answers.add_response("describe_change_set", {"Changes": [{"Type": "Resource", "ResourceChange": other}]})
    planned = answers.stacks.plan(NAME, TEMPLATE, {"Stage": "prod"}, {"proctorwire-stage": "prod"})
    assert [(change.action, change.resource, change.replacement) for change in planned.changes] == [
        ("Add", "Queue", ""),
        ("Modify", "Other", "True"),
    ]


def test_what_is_not_given_stays_as_it_was_deployed_and_new_parameters_take_their_default(answers):
    parameters = [
        {"ParameterKey": "Stage", "ParameterValue": "prod"},
        {"ParameterKey": "MemoryMb", "ParameterValue": "512"},
    ]
    describes(answers, "UPDATE_COMPLETE", Parameters=parameters)
    has_no_change_set_left(answers)
    kept = [{"ParameterKey": "Stage", "ParameterValue": "prod"}, {"ParameterKey": "MemoryMb", "UsePreviousValue": True}]
    given = dict.fromkeys(("StackName", "ChangeSetName", "TemplateBody", "Capabilities", "Tags"), ANY)
    answers.add_response("create_change_set", {"Id": ID}, given | {"ChangeSetType": "UPDATE", "Parameters": kept})
    reason = "The submitted information didn't contain changes. Submit different information to create a change set."
    answers.add_response("describe_change_set", {"Status": "FAILED", "StatusReason": reason})
    answers.add_response("delete_change_set", {})
    assert answers.stacks.plan(NAME, TEMPLATE, {"Stage": "prod"}, {}) == ChangeSet(NAME, "", False, ())


def test_a_change_set_that_can_not_be_made_leaves_nothing_behind(answers):
    is_missing(answers)
    has_no_change_set_left(answers)
    answers.add_response("create_change_set", {"Id": ID})
    answers.add_response("describe_change_set", {"Status": "FAILED", "StatusReason": "Template error: no such thing"})
    answers.add_response("delete_change_set", {}, {"StackName": NAME, "ChangeSetName": ID})
    describes(answers, "REVIEW_IN_PROGRESS")
    answers.add_response("delete_stack", {}, {"StackName": NAME})
    with pytest.raises(StackError, match="Template error: no such thing"):
        answers.stacks.plan(NAME, TEMPLATE, {}, {})


def test_a_stack_that_is_busy_is_left_alone(answers):
    describes(answers, "UPDATE_IN_PROGRESS")
    with pytest.raises(StackError, match="UPDATE_IN_PROGRESS; wait until that is done"):
        answers.stacks.plan(NAME, TEMPLATE, {}, {})


def test_a_stack_that_failed_when_it_was_made_is_made_anew(answers):
    describes(answers, "ROLLBACK_COMPLETE")
    describes(answers, "ROLLBACK_COMPLETE")  # as `delete` sees it
    happens(answers)
    describes(answers, "ROLLBACK_COMPLETE")
    answers.add_response("delete_stack", {})
    describes(answers, "DELETE_COMPLETE")
    happens(answers)
    has_no_change_set_left(answers)
    given = dict.fromkeys(("StackName", "ChangeSetName", "TemplateBody", "Capabilities", "Tags", "Parameters"), ANY)
    answers.add_response("create_change_set", {"Id": ID}, given | {"ChangeSetType": "CREATE"})
    answers.add_response("describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": []})
    assert answers.stacks.plan(NAME, TEMPLATE, {}, {}).creates


def test_what_happens_is_told_once_and_as_it_happens(answers):
    happens(answers, ("Old", "UPDATE_COMPLETE", ""))
    answers.add_response("execute_change_set", {})
    describes(answers, "UPDATE_IN_PROGRESS")
    happens(answers, ("Old", "UPDATE_COMPLETE", ""), ("Queue", "UPDATE_IN_PROGRESS", ""))
    describes(answers, "UPDATE_COMPLETE")
    happens(answers, ("Queue", "UPDATE_IN_PROGRESS", ""), ("Queue", "UPDATE_COMPLETE", ""))
    told = [(each.resource, each.status) for each in answers.stacks.apply(ChangeSet(NAME, ID, False, ()))]
    assert told == [("Queue", "UPDATE_IN_PROGRESS"), ("Queue", "UPDATE_COMPLETE")]


def test_a_failure_is_told_with_its_first_cause_and_not_with_what_it_took_along(answers):
    happens(answers)
    answers.add_response("execute_change_set", {})
    describes(answers, "ROLLBACK_COMPLETE")
    happens(
        answers,
        ("Queue", "CREATE_FAILED", "Resource creation cancelled"),
        ("Function", "CREATE_FAILED", "the role may not be assumed"),
        ("Other", "CREATE_FAILED", "Resource creation cancelled"),
    )
    with pytest.raises(StackError) as raised:
        list(answers.stacks.apply(ChangeSet(NAME, ID, True, ())))
    assert str(raised.value) == (
        f"{NAME} ended as ROLLBACK_COMPLETE: Function (AWS::Lambda::Function): the role may not be assumed"
    )


def test_nothing_to_apply_asks_nothing(answers):
    assert list(answers.stacks.apply(ChangeSet(NAME, "", False, ()))) == []


def test_a_template_that_is_too_long_to_send_is_said_to_be(answers, monkeypatch):
    monkeypatch.setattr(under_test.templates, "MAX_BODY_BYTES", 10)
    is_missing(answers)
    with pytest.raises(StackError, match="CloudFormation takes 10"):
        answers.stacks.plan(NAME, TEMPLATE, {}, {})


def test_a_refusal_names_the_operation_and_the_reason(answers):
    answers.add_client_error("describe_stacks", "AccessDenied", "no right to cloudformation:DescribeStacks", 403)
    with pytest.raises(StackError, match="AWS refused DescribeStacks: AccessDenied: no right"):
        answers.stacks.describe(NAME)
