"""Twelve things that calculators of AWS bills leave out, one test each: what they are, and that they are in ours."""

import math

import msgspec
import pytest
from sample_result import cluster_usage as run_of_cluster
from sample_result import sample_result
from sample_result import serverless_usage as run_of_serverless

from compare.advice.choice import Case, advise
from compare.bill.assumptions import Assumptions
from compare.bill.cost import ExamPlan, billed_ms, capacity, cluster_cost, serverless_cost
from compare.bill.prices import load_prices
from compare.bill.stretch import stretch_serverless
from compare.bill.usage import FunctionUsage, ServerlessUsage, ServiceCalls
from compare.model.calibration import shipped
from compare.model.units import Exam, cluster_usage, serverless_usage
from compare.pages.report import html_report

SINGAPORE = load_prices("ap-southeast-1")
EXAM = Exam(students=1_000, hours=2.0)


def lines_of(bill):
    return {line.name: line for line in bill.lines}


def serverless(exam=EXAM, exams=8.0, **given):
    usage = serverless_usage(exam, shipped())
    return serverless_cost(usage, ExamPlan(exam.hours, exams), SINGAPORE, None, Assumptions(**given))


def changed(exam=EXAM, **fields):
    return msgspec.structs.replace(exam, **fields)


def one_message(**fields) -> ServerlessUsage:
    usage = ServerlessUsage(
        duration_seconds=3_600.0,
        students=1,
        reports=1,
        messages_in=1,
        messages_out=0,
        connection_minutes=60.0,
        connects=1,
        disconnects=1,
        functions={"message": FunctionUsage("message", 1_769, 1, 1.0)},
        dynamodb_read_units=0.0,
        dynamodb_write_units=1.0,
        sqs_requests=0,
        log_bytes=0,
        egress_bytes=0,
    )
    return msgspec.structs.replace(usage, **fields)


def test_1_fan_out_is_a_billed_message_and_billed_time_for_each_proctor():
    one, three = (serverless_usage(changed(proctors_per_exam=number), shipped()) for number in (1, 3))
    more = three.messages_out - one.messages_out
    assert more > 2 * 1_000 * 60 * 2  # two more proctors for each change of each student, and their snapshots
    calls = three.functions["message"].calls.post_to_connection - one.functions["message"].calls.post_to_connection
    assert calls == pytest.approx(more, rel=0.02)
    assert billed_ms(three.functions["message"]) - billed_ms(one.functions["message"]) > 10 * calls


def test_1_what_more_than_three_proctors_watch_is_published_together():
    three, four = (serverless_usage(changed(proctors_per_exam=number), shipped()) for number in (3, 4))
    assert four.messages_out < three.messages_out / 2
    calls, runs = four.functions["views"].calls.post_to_connection, four.functions["views"].invocations
    assert calls == pytest.approx(4 * runs, abs=4)
    # each change is one more call of the queue, and one more request of it
    changes = 1_000 * 60 * 2
    assert four.functions["message"].calls.sqs == pytest.approx(changes, rel=0.02)
    assert four.sqs_requests - three.sqs_requests > changes


def test_2_connections_invoke_three_functions_and_all_reconnect_after_two_hours():
    usage = serverless_usage(changed(hours=3.0, drops_per_hour=0.0), shipped())
    assert set(usage.functions) >= {"authorizer", "connect", "disconnect"}
    exam = stretch_serverless(usage, ExamPlan(3.0, 1.0))
    for name in ("authorizer", "connect", "disconnect"):
        assert exam.functions[name].invocations == pytest.approx(2 * usage.functions[name].invocations, rel=0.01)


def test_3_heartbeats_are_billed_messages():
    silent = changed(changes_per_hour=0.0, drops_per_hour=0.0, proctors_per_exam=0)
    usage = serverless_usage(silent, shipped())
    beats = 1_000 * 2 * 240 * (1 - 0)  # one every 15 s of every student
    assert usage.messages_in == pytest.approx(beats + 1_000, rel=0.01)
    assert lines_of(serverless(silent).month)["Messages from clients"].usd == pytest.approx(
        8 * usage.messages_in * 1.15e-6
    )


def test_4_the_start_of_an_environment_is_billed():
    line = lines_of(serverless().month)["Lambda cold starts (arm64)"]
    assert line.usd > 0
    assert "INIT" in line.note


def test_5_a_transaction_takes_twice_the_write_units_and_so_do_items_over_a_kilobyte():
    per = shipped().serverless.per
    # a join writes the participant and its entry together: two items, two units each, and what else it writes
    assert per["join"]["write_units"] >= 4 * 0.9 * per["join"]["dynamodb_transact"]
    assert per["same"]["write_units"] == pytest.approx(
        1.0, abs=0.15
    )  # a participant is below 1 KB, and no index repeats it
    big = cluster_cost(run_of_cluster(), ExamPlan(3, 1), SINGAPORE, assumptions=Assumptions(journal_entry_bytes=1_500))
    small = cluster_cost(run_of_cluster(), ExamPlan(3, 1), SINGAPORE, assumptions=Assumptions(journal_entry_bytes=900))
    writes = [lines_of(cost.month)["DynamoDB writes (journal)"].quantity for cost in (big, small)]
    assert writes[0] == 2 * writes[1]


def test_6_logs_are_billed_by_the_byte_lambdas_own_lines_too():
    quiet = one_message()
    bill = lines_of(
        serverless_cost(quiet, ExamPlan(1.0, 1.0), SINGAPORE, assumptions=Assumptions(platform_log_bytes=400)).month
    )
    assert bill["Log ingestion"].quantity == pytest.approx(400 / 2**30)
    ours = lines_of(serverless_cost(quiet, ExamPlan(1.0, 1.0), SINGAPORE).month)
    assert ours["Log ingestion"].quantity == 0  # the template has Lambda write warnings only
    assert bill["Log storage"].usd > 0
    # the embedded metric format makes metrics of log lines, billed for the hours in which they come: 1 of 730, and 3 always
    assert bill["CloudWatch metrics"].quantity == pytest.approx(3 + 45 / 730)


def test_7_bytes_out_between_zones_and_the_load_balancers_units():
    busy = changed(students=20_000)
    whole, opening = cluster_usage(busy, shipped())
    cost = cluster_cost(whole, ExamPlan(2.0, 8.0), SINGAPORE, opening, Assumptions(min_instances=2))
    bill = lines_of(cost.month)
    for name in (
        "Data to the internet",
        "Traffic between zones",
        "Load balancer to other zones",
        "Load balancer capacity",
    ):
        assert bill[name].usd > 0, name
    # 20,000 open TLS connections are 6.7 units while the exam lasts
    assert bill["Load balancer capacity"].quantity == pytest.approx(20_002 / 3_000 * 2 * 8, rel=0.01)


def test_8_idle_hours_spare_instances_and_the_replica_of_the_cache_are_paid_for():
    whole, opening = cluster_usage(EXAM, shipped())
    given = Assumptions(min_instances=2, spare_instances=1)
    bill = lines_of(cluster_cost(whole, ExamPlan(2.0, 1.0), SINGAPORE, opening, given).month)
    assert bill["Instances (3 x t3a.small)"].quantity == 3 * 730  # for one exam of two hours
    assert bill["ElastiCache for Valkey"].quantity == 2 * 730
    size = capacity(whole, ExamPlan(2.0, 1.0), SINGAPORE.instance("t3a.small"), opening, given)
    assert size.vcpu_available > 2 * size.vcpu_needed


def test_9_every_message_is_rounded_up_to_32_kib_by_itself():
    # 450 students in one snapshot: more than two pages of 96 KiB, each three steps
    many = changed(students=450, proctors_per_exam=1, changes_per_hour=0.0, drops_per_hour=0.0, hours=0.05)
    usage = serverless_usage(many, shipped())
    view = shipped().serverless.bytes["snapshot_view"]
    pages, rest = divmod(450 * view, 96 * 1024)
    steps = pages * 3 + math.ceil(rest / 32768)
    assert steps > 450 * view / 32768
    watches = 4  # one at the start, and one each minute
    assert usage.messages_out == pytest.approx(450 * 3 + watches * steps, abs=3)  # joined, ack, and the label of each


def test_10_retries_and_posts_to_gone_connections_can_be_paid_for():
    plain, retried, gone = (
        lines_of(serverless(**given).month) for given in ({}, {"retried_share": 0.1}, {"gone_share": 0.1})
    )
    assert retried["DynamoDB writes"].usd == pytest.approx(1.1 * plain["DynamoDB writes"].usd)
    assert retried["Lambda requests"].usd > 1.05 * plain["Lambda requests"].usd
    assert gone["Messages to clients"].usd == pytest.approx(1.1 * plain["Messages to clients"].usd)


def test_11_latency_and_cost_come_from_the_same_run():
    result = sample_result()
    for run in result.modes.values():
        assert run.usage is not None
        assert run.latency_ms.delivery.count == run.sent
        assert run.cost is not None
    page = html_report(result)
    assert page.index("How soon the proctor sees it") < page.index("is made of")
    assert run_of_serverless().reports == run_of_cluster().reports


@pytest.mark.no_cover  # test_choice.py reaches the same lines
def test_12_the_break_even_comes_with_its_uncertainty():
    found = advise(Case(EXAM, 8.0, SINGAPORE, shipped(), Assumptions()))
    exams = next(flip for flip in found.flips if flip.what == "exams a month")
    low, high = sorted(end for end in found.break_even_range if end is not None)
    assert low <= exams.at <= high
    assert low < high
    names = {guess.name for guess in found.guesses}
    assert {"PostToConnection takes", "CPU time on Lambda compared with this machine"} <= names
    assert any("vCPU" in name for name in names)


def test_calls_in_the_model_are_whole_numbers():
    for function in serverless_usage(EXAM, shipped()).functions.values():
        assert isinstance(function.calls, ServiceCalls)
        assert all(isinstance(getattr(function.calls, name), int) for name in ServiceCalls.__struct_fields__)
