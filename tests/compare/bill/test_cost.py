"""The arithmetic of the bills, against worked examples and against a second reckoning."""

import msgspec
import pytest
from sample_result import cluster_opening, cluster_usage, serverless_opening, serverless_usage

from compare.bill.cost import Assumptions, CostError, ExamPlan, billed_ms, capacity, cluster_cost, compare_costs
from compare.bill.cost import serverless_cost as cost_of
from compare.bill.lines import BreakEven, Curve, break_even, break_even_sentence
from compare.bill.prices import MissingPriceError, load_prices
from compare.bill.stretch import stretch_cluster, stretch_serverless
from compare.bill.usage import ClusterUsage, FunctionUsage, ProcessSplit, ServerlessUsage, ServiceCalls

SINGAPORE = load_prices("ap-southeast-1")
GIB = 2**30

KEPT_SECRET = 2 * 0.40 + 10_000 * 5e-6 + 1.0 + 20_000 * 3e-6  # a month: secrets, their reads, a key and its use


def lines_of(bill):
    assert len({line.name for line in bill.lines}) == len(bill.lines)
    return {line.name: line for line in bill.lines}


def ten_seconds_of_1000_students() -> ServerlessUsage:
    """Two reports each, and nothing else: the example of the literature in small."""
    return ServerlessUsage(
        duration_seconds=10.0,
        students=1_000,
        reports=2_000,
        messages_in=2_000,
        messages_out=0,
        connection_minutes=1_000 * 10 / 60,
        connects=1_000,
        disconnects=1_000,
        functions={"message": FunctionUsage("message", 1_769, 2_000, 2_000.0)},
        dynamodb_read_units=0.0,
        dynamodb_write_units=2_000.0,
        sqs_requests=0,
        log_bytes=0,
        egress_bytes=0,
    )


# Stretching


def test_1000_students_for_3_hours_every_5_seconds_are_2_16_million_messages_and_180000_minutes():
    exam = stretch_serverless(ten_seconds_of_1000_students(), ExamPlan(3.0, 1.0))
    assert exam.messages_in == 2_160_000
    assert exam.connection_minutes == pytest.approx(180_000)
    bill = lines_of(cost_of(ten_seconds_of_1000_students(), ExamPlan(3.0, 1.0), SINGAPORE).exam)
    assert bill["Messages from clients"].usd == pytest.approx(2.16 * 1.15)
    assert bill["DynamoDB writes"].usd == pytest.approx(2.16 * 0.71)
    assert bill["Lambda requests"].usd == pytest.approx(2.16 * 0.20)
    # 180,000 minutes, and half a minute more for each of the 1,000 connects and the 1,000 reconnects after 2 h
    assert bill["Connection minutes"].usd == pytest.approx(181_000 * 0.288e-6)


def test_connects_do_not_grow_with_time_but_for_the_forced_cut():
    usage = ten_seconds_of_1000_students()
    assert stretch_serverless(usage, ExamPlan(2.0, 1.0)).connects == 1_000
    assert stretch_serverless(usage, ExamPlan(2.5, 1.0)).connects == 2_000
    assert stretch_serverless(usage, ExamPlan(4.5, 1.0)).connects == 3_000


def test_functions_run_by_connections_follow_the_number_of_connections():
    usage = msgspec.structs.replace(
        ten_seconds_of_1000_students(),
        functions={"connect": FunctionUsage("connection", 512, 1_000, 3_000.0, ServiceCalls(dynamodb_write=1_000), 9)},
    )
    connect = stretch_serverless(usage, ExamPlan(3.0, 1.0)).functions["connect"]
    assert (connect.invocations, connect.handler_cpu_ms, connect.calls.dynamodb_write) == (2_000, 6_000.0, 2_000)
    assert connect.cold_starts == 9


def test_the_opening_counts_once_and_only_the_rest_is_stretched():
    usage, opening = serverless_usage(50.0, 4_000), serverless_opening()
    exam = stretch_serverless(usage, ExamPlan(3.0, 1.0), opening)
    times = (10_800 - 20) / 30
    assert exam.journal_entries == round(1_220 + 20 * times)
    assert exam.messages_in == round(1_660 + 2_400 * times)
    assert exam.dynamodb_write_units == pytest.approx(3_400 + 2_400 * times)


def test_another_number_of_students_multiplies_everything():
    one = stretch_serverless(ten_seconds_of_1000_students(), ExamPlan(3.0, 1.0))
    three = stretch_serverless(ten_seconds_of_1000_students(), ExamPlan(3.0, 1.0, students=3_000))
    assert three.students == 3_000
    assert three.messages_in == 3 * one.messages_in
    assert three.connects == 3 * one.connects
    cluster = stretch_cluster(cluster_usage(), ExamPlan(1.0, 1.0, students=800))
    assert cluster.connections == 808
    assert cluster.cpu_seconds.workers == pytest.approx(2 * 2.4 * 72)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (ExamPlan(0.0, 1.0), "more than 0 hours"),
        (ExamPlan(3.0, -1.0), "must not be negative"),
        (ExamPlan(3.0, 1.0, students=0), "at least one student"),
        (ExamPlan(3.0, 300.0), "do not fit into a month"),
    ],
)
def test_impossible_plans_are_named(plan, says):
    with pytest.raises(CostError, match=says):
        cost_of(ten_seconds_of_1000_students(), plan, SINGAPORE)


def test_a_run_that_ended_with_its_opening_has_no_cost():
    usage = serverless_usage()
    with pytest.raises(CostError, match="too short"):
        cost_of(usage, ExamPlan(3.0, 1.0), SINGAPORE, opening=usage)


# Lambda's billed time


def test_billed_time_is_cpu_at_the_share_of_a_vcpu_plus_waits_plus_half_a_millisecond():
    calls = ServiceCalls(dynamodb_read=10, dynamodb_write=10, dynamodb_transact=2, post_to_connection=30, sqs=1)
    function = FunctionUsage("message", 512, 10, 20.0, calls)
    waits = 10 * 10 + 10 * 10 + 2 * 15 + 30 * 10 + 1 * 10
    assert billed_ms(function) == pytest.approx(20 * 1769 / 512 + waits + 5)


def test_more_memory_than_a_vcpu_needs_makes_nothing_faster():
    small = FunctionUsage("message", 1_769, 10, 20.0)
    large = FunctionUsage("message", 3_538, 10, 20.0)
    assert billed_ms(small) == billed_ms(large) == pytest.approx(25.0)


def test_cold_starts_are_billed():
    function = FunctionUsage("message", 1_024, 0, 0.0, cold_starts=10, init_cpu_ms=3_000.0)
    usage = msgspec.structs.replace(ten_seconds_of_1000_students(), functions={"message": function})
    line = lines_of(cost_of(usage, ExamPlan(3.0, 1.0), SINGAPORE).exam)["Lambda cold starts (arm64)"]
    assert line.quantity == pytest.approx(3.0)
    assert line.usd == pytest.approx(3 * 1.33334e-5)


# Whole bills, reckoned a second time


def test_a_serverless_month_reckoned_by_hand():
    cost = cost_of(serverless_usage(), ExamPlan(3.0, 20.0), SINGAPORE, serverless_opening())
    times, exams = (10_800 - 20) / 30, 20
    reports = 1_600 + 2_400 * times
    messages_in = 60 + reports
    messages_out = 900 + 2 * reports
    connects = 424 + 404
    minutes = 404 * 0.95 / 60 * (20 + 30 * times) + connects / 2
    sweeps = 20
    invocations = 2 * connects + 60 + reports + sweeps
    per_connect = connects / 424
    authorizer = 424 * 1.1 * per_connect * 1769 / 256 + 0.5 * connects
    connect = 424 * 1.5 * per_connect * 1769 / 512 + 10 * connects + 0.5 * connects
    message = (
        reports * 3.1 * 1769 / 512
        + 10 * 2 * reports
        + 10 * reports
        + 15 * 900
        + 10 * (2 * reports + 900)
        + 0.5 * (reports + 60)
    )
    sweep = 90 * 1769 / 512 + 3 * 20 * 10 + 10
    gb_seconds = (authorizer * 0.25 + (connect + message + sweep) * 0.5) / 1000
    init = (900 * 0.25 + (1200 + 4800 + 200) * 0.5) / 1000
    entries = 1_220 + 20 * times
    log_gb = reports * 300 / GIB
    egress_gb = (reports * 700 + messages_out * 80) / GIB
    per_exam = (
        (messages_in + messages_out) * 1.15e-6
        + minutes * 0.288e-6
        + connects * 1.25e-6
        + invocations * 0.2e-6
        + (gb_seconds + init) * 1.33334e-5
        + (reports + 1_800) * 0.71e-6
        + 1.5 * reports * 0.1425e-6
        + entries * 1024 / GIB * 12 * 0.285
        + 60 * 0.4e-6
        + log_gb * (0.70 + 0.03)
        + egress_gb * 0.12
    )
    standing = 3 * 15 * 60 * 730 * 0.4e-6 + 15 * 0.10 + 3.00 + (3 + 45 * 60 / 730) * 0.30 + KEPT_SECRET
    assert cost.exam.usd == pytest.approx(per_exam, rel=1e-5)
    assert cost.month.usd == pytest.approx(exams * per_exam + standing, rel=1e-5)


def test_a_cluster_month_reckoned_by_hand():
    cost = cluster_cost(cluster_usage(), ExamPlan(3.0, 20.0), SINGAPORE, cluster_opening())
    times, exams = (10_800 - 20) / 30, 20
    reports = 1_600 + 2_400 * times
    frames = 300 + 2 * reports
    entries = 1_220 + 20 * times
    egress_gb = (reports * 640 + frames * 80) / GIB
    nlcu = max(424 / 10_800 / 50, 404 / 3_000, (reports * 420 / GIB + egress_gb) / 3)
    other_zones = 2 * (reports * 420 / GIB + egress_gb) / 2 * 0.01
    traffic = other_zones * exams
    traffic += (nlcu * 3 * 0.006 + entries * 0.71e-6 + entries * 1024 / GIB * 12 * 0.285 + egress_gb * 0.12) * exams
    watching = 6 * 0.10 + 3.00 + KEPT_SECRET + 0.1 * 0.70 + 0.50
    always_on = 730 * 0.0236 + 730 * 0.0252 + 3 * 730 * 0.005 + 8 * 0.096
    scheduled = 80 * 0.0236 + 730 * 0.0252 + (80 + 2 * 730) * 0.005 + 8 * 80 / 730 * 0.096
    to_zero = 80 * 0.0236 + 80 * 0.0252 + 3 * 80 * 0.005 + 8 * 80 / 730 * 0.096
    months = {bill.variant: bill.usd for bill in (cost.month, *cost.other_months)}
    agent = 12 * 0.30  # of an instance and its group, a whole month
    assert months["always on"] == pytest.approx(always_on + traffic + watching + agent, rel=1e-5)
    assert months["scheduled"] == pytest.approx(scheduled + traffic + watching + agent * 80 / 730, rel=1e-5)
    assert months["scale to zero"] == pytest.approx(to_zero + traffic + watching + agent * 80 / 730, rel=1e-5)
    assert cost.exam.usd == pytest.approx((to_zero + traffic) / exams, rel=1e-5)


def test_every_line_is_quantity_times_unit_price_and_has_a_source():
    serverless = cost_of(serverless_usage(), ExamPlan(3.0, 20.0), SINGAPORE)
    cluster = cluster_cost(cluster_usage(), ExamPlan(3.0, 20.0), SINGAPORE)
    for bill in (serverless.exam, serverless.month, cluster.exam, cluster.month, *cluster.other_months):
        assert bill.usd == pytest.approx(sum(line.usd for line in bill.lines))
        for line in bill.lines:
            assert line.usd == pytest.approx(line.quantity * line.unit_price_usd)
            assert line.unit_price_usd > 0
            assert line.source


def test_messages_in_both_directions_share_the_tiers_of_a_month():
    usage = msgspec.structs.replace(ten_seconds_of_1000_students(), messages_in=2_000_000, messages_out=2_000_000)
    bill = lines_of(cost_of(usage, ExamPlan(1.0, 1.0), SINGAPORE).month)
    together = bill["Messages from clients"].usd + bill["Messages to clients"].usd
    assert together == pytest.approx(1e9 * 1.15e-6 + (1.44e9 - 1e9) * 0.95e-6)


def test_a_price_that_is_missing_stops_the_bill():
    with pytest.raises(MissingPriceError, match=r"c7a\.large"):
        cluster_cost(cluster_usage(), ExamPlan(3, 1), SINGAPORE, assumptions=Assumptions(instance_type="c7a.large"))


def test_a_type_that_is_not_burstable_has_no_credit_line():
    cost = cluster_cost(
        cluster_usage(), ExamPlan(3.0, 1.0), SINGAPORE, assumptions=Assumptions(instance_type="c7g.large")
    )
    assert "CPU above the credits" not in lines_of(cost.month)


# Capacity


def busy(cpu: float, **changes) -> ClusterUsage:
    usage = msgspec.structs.replace(
        cluster_usage(), duration_seconds=100.0, cpu_seconds=ProcessSplit(workers=cpu, redis=cpu / 4)
    )
    return msgspec.structs.replace(usage, **changes)


def test_one_instance_is_enough_for_a_small_school():
    size = capacity(cluster_usage(), ExamPlan(3.0, 1.0), SINGAPORE.instance("t3a.small"))
    assert (size.instances, size.decided_by) == (1, "minimum")
    assert size.vcpu_needed == pytest.approx(3.4 / 50 * 2.5)
    assert size.cpu_ms_per_1000_reports == pytest.approx(850.0)


def test_cpu_decides_at_half_of_the_vcpus_and_redis_moves_out():
    # 1 vCPU of an instance's 2 is for use; with Redis on it 100 x 2.5 / 100 x 1.25 = 3.1 would be needed
    size = capacity(busy(100.0), ExamPlan(3.0, 1.0), SINGAPORE.instance("t3a.small"))
    assert size.vcpu_needed == pytest.approx(2.5)
    assert (size.instances, size.decided_by) == (3, "cpu")
    bill = lines_of(cluster_cost(busy(100.0), ExamPlan(3.0, 1.0), SINGAPORE).month)
    assert bill["ElastiCache for Valkey"].quantity == 2 * 730


def test_memory_decides_when_connections_are_many():
    split = ProcessSplit(workers=3.0 * GIB, redis=0.1 * GIB)
    usage = busy(1.0, memory_bytes=split, memory_idle_bytes=ProcessSplit(workers=0.5 * GIB, redis=0.1 * GIB))
    size = capacity(usage, ExamPlan(3.0, 1.0), SINGAPORE.instance("t3a.small"))
    assert (size.instances, size.decided_by) == (3, "memory")  # 2.5 GiB of connections, 1 GiB for them on each


def test_the_busiest_part_of_the_run_counts():
    usage = msgspec.structs.replace(cluster_usage(), cpu_seconds=ProcessSplit(workers=30.0))
    opening = msgspec.structs.replace(cluster_opening(), cpu_seconds=ProcessSplit(workers=24.0))
    size = capacity(usage, ExamPlan(3.0, 1.0), SINGAPORE.instance("t3a.small"), opening)
    assert size.vcpu_needed == pytest.approx(24 / 20 * 2.5)


def test_a_run_of_two_instances_is_billed_for_two():
    usage = msgspec.structs.replace(cluster_usage(), instances=2, cross_instance_bytes=GIB)
    cost = cluster_cost(usage, ExamPlan(1.0, 1.0), SINGAPORE)
    assert cost.capacity.instances == 2
    assert lines_of(cost.month)["Traffic between zones"].usd == pytest.approx(2 * 72 * 0.01)


def test_too_little_memory_for_the_processes_alone_is_named():
    with pytest.raises(CostError, match=r"t3a\.nano is too small"):
        capacity(busy(1.0, memory_idle_bytes=ProcessSplit(workers=GIB)), ExamPlan(3, 1), SINGAPORE.instance("t3a.nano"))


def test_cpu_above_the_credits_is_charged_when_the_exam_outlasts_them():
    # 0.3 CPU seconds a second x 2.5 = 0.75 vCPU for 3 h = 2.25 vCPU hours; 2 x 20 % x 24 h = 9.6 are earned always on,
    # 2 x 20 % x 4 h = 1.6 by an instance that runs for the exam only
    usage = busy(24.0, cpu_seconds=ProcessSplit(workers=30.0))
    cost = cluster_cost(usage, ExamPlan(3.0, 10.0), SINGAPORE)
    surplus = {bill.variant: lines_of(bill)["CPU above the credits"] for bill in (cost.month, *cost.other_months)}
    assert surplus["always on"].quantity == 0
    assert surplus["scheduled"].quantity == pytest.approx(10 * (2.25 - 1.6))
    assert surplus["scheduled"].usd == pytest.approx(10 * 0.65 * 0.05)


# The verdict


def both(exams: float = 20.0):
    plan = ExamPlan(3.0, exams)
    return (
        cost_of(serverless_usage(), plan, SINGAPORE, serverless_opening()),
        cluster_cost(cluster_usage(), plan, SINGAPORE, cluster_opening()),
    )


def test_the_bills_are_equal_at_the_break_even():
    serverless, cluster = both()
    meeting = compare_costs(serverless, cluster).break_even[0]
    assert meeting.variant == "always on"
    assert meeting.cheaper_above == "ec2"
    again = both(meeting.exams_per_month)
    assert again[0].month.usd == pytest.approx(again[1].month.usd, rel=1e-3)


def test_the_cheaper_one_changes_at_the_break_even():
    few, many = compare_costs(*both(2.0)), compare_costs(*both(20.0))
    assert (few.cheaper, many.cheaper) == ("lambda", "ec2")
    serverless, cluster = both(20.0)
    assert many.saves_usd == pytest.approx(serverless.month.usd - cluster.month.usd)
    assert many.saves_percent == pytest.approx(100 * many.saves_usd / serverless.month.usd)
    assert "20 exams a month of 3 h with 400 students" in many.sentence


@pytest.mark.parametrize(
    ("serverless", "cluster", "expected"),
    [
        (((0.0, 0.0), (10.0, 100.0)), ((0.0, 50.0), (10.0, 50.0)), BreakEven("always on", 5.0, "ec2")),
        (((0.0, 9.0), (10.0, 9.0)), ((0.0, 0.0), (10.0, 90.0)), BreakEven("always on", 1.0, "lambda")),
        (((0.0, 1.0), (10.0, 2.0)), ((0.0, 3.0), (10.0, 4.0)), BreakEven("always on", None, "lambda")),
        (((0.0, 5.0), (10.0, 6.0)), ((0.0, 3.0), (10.0, 4.0)), BreakEven("always on", None, "ec2")),
    ],
)
def test_break_even_of_two_curves(serverless, cluster, expected):
    assert break_even(Curve("pay per use", serverless), Curve("always on", cluster)) == expected


@pytest.mark.parametrize(
    ("meeting", "says"),
    [
        (BreakEven("always on", 9.4, "ec2"), "serverless is cheaper up to 9 exams a month, and the cluster from 10 on"),
        (BreakEven("scheduled", 1.5, "lambda"), "the cluster is cheaper up to 1 exam a month, and serverless from 2"),
        (BreakEven("scale to zero", 0.3, "ec2"), "the cluster is cheaper from the first exam of a month on"),
        (BreakEven("always on", None, "lambda"), "serverless is cheaper for any number of exams"),
    ],
)
def test_break_even_in_words(meeting, says):
    assert says in break_even_sentence(meeting)


def test_a_guess_moves_the_bill_between_its_ends():
    for cost in both():
        for guess in cost.sensitivity:
            assert guess.low <= guess.used <= guess.high
            assert guess.usd_low <= cost.month.usd + 1e-9
            assert guess.usd_high >= cost.month.usd - 1e-9
