"""Free tiers, CPU credits hour by hour, listeners, spare instances, and other services as cost lines."""

import msgspec
import pytest
from sample_result import cluster_usage, serverless_opening, serverless_usage

from compare.bill.alternatives import alternatives
from compare.bill.assumptions import Assumptions
from compare.bill.cost import ExamPlan, capacity, cheapest_type, cluster_cost, serverless_cost
from compare.bill.credits import one_run, simulate, timetable
from compare.bill.free import ALLOWANCES
from compare.bill.prices import load_prices
from compare.bill.stretch import stretch_serverless
from compare.bill.usage import ProcessSplit

SINGAPORE = load_prices("ap-southeast-1")
SMALL = SINGAPORE.instance("t3a.small")
PLAN = ExamPlan(3.0, 20.0)


def lines_of(bill):
    return {line.name: line for line in bill.lines}


def serverless(**given):
    return serverless_cost(serverless_usage(), PLAN, SINGAPORE, serverless_opening(), Assumptions(**given))


def cluster(usage=None, plan=PLAN, **given):
    return cluster_cost(usage or cluster_usage(), plan, SINGAPORE, assumptions=Assumptions(**given))


# Free tiers


def test_the_legacy_free_tier_takes_off_a_million_messages_and_750_000_minutes():
    bill = lines_of(serverless(free_tier="legacy").month)
    assert bill["Free tier: WebSocket messages"].usd == pytest.approx(-1.15)
    assert bill["Free tier: Connection minutes"].usd == pytest.approx(-750_000 * 0.288e-6)
    assert bill["Free tier: Lambda requests"].usd == pytest.approx(-0.20)
    assert bill["Free tier: Lambda compute"].quantity == -min(
        400_000, bill["Lambda compute (arm64)"].quantity + bill["Lambda cold starts (arm64)"].quantity
    )


def test_a_free_tier_never_takes_off_more_than_there_is():
    for kind in ("legacy", "credit"):
        for cost in (serverless(free_tier=kind), cluster(free_tier=kind)):
            assert cost.month.usd >= 0
            for line in cost.month.lines:
                assert line.usd == pytest.approx(line.quantity * line.unit_price_usd)


def test_an_account_with_credits_keeps_what_is_free_for_ever_and_a_twelfth_of_200_dollars():
    bill = lines_of(serverless(free_tier="credit").month)
    assert "Free tier: WebSocket messages" not in bill
    assert "Free tier: Lambda requests" in bill
    assert bill["Credits of a new account"].usd == pytest.approx(-200 / 12)


def test_without_a_free_tier_nothing_is_taken_off():
    assert all(line.usd >= 0 for line in serverless().month.lines)


def test_every_allowance_belongs_to_a_line_that_some_bill_has():
    names = [line.name for cost in (serverless(), cluster()) for line in cost.month.lines]
    for allowance in ALLOWANCES:
        assert any(name.startswith(allowance.lines) for name in names), allowance.name


def test_one_exam_is_never_billed_with_a_free_tier():
    assert serverless(free_tier="legacy").exam == serverless().exam


# CPU credits. A t3a.small earns 24 an hour, keeps 576, and a vCPU hour takes 60.


def test_an_instance_at_its_baseline_neither_earns_nor_owes():
    use = simulate(SMALL, [0.4] * 100)
    assert use.charged_vcpu_hours == 0
    assert use.balances[-1] == pytest.approx(0)


def test_credits_are_kept_up_to_24_hours_of_earnings():
    assert simulate(SMALL, [0.0] * 100).balances[-1] == 576


def test_a_full_balance_carries_both_vcpus_for_six_hours():
    use = simulate(SMALL, [0.0] * 24 + [2.0] * 7)
    # 576 + 24 n - 120 n: empty after exactly six hours
    assert use.balances[24 + 5] == pytest.approx(0)
    assert use.balances[24 + 6] == pytest.approx(-96)
    assert use.charged_vcpu_hours == 0  # borrowed, not charged: less than 24 hours' earnings


def test_what_is_borrowed_beyond_24_hours_of_earnings_is_charged():
    use = simulate(SMALL, [2.0] * 10)
    assert use.charged_vcpu_hours == pytest.approx((10 * 96 - 576) / 60)
    assert use.balances[-1] == -576


def test_borrowed_credits_are_paid_back_by_later_hours_and_charged_at_the_end():
    living = simulate(SMALL, [2.0, 0.0, 0.0, 0.0, 0.0])
    assert (living.charged_vcpu_hours, living.borrowed_hours) == (0, 4)
    ended = simulate(SMALL, [2.0, 0.0, 0.0], ends_after=3.0)
    assert ended.charged_vcpu_hours == pytest.approx((120 - 3 * 24) / 60)


def test_part_of_an_hour_earns_part_of_the_credits():
    assert simulate(SMALL, [2.0], ends_after=0.5).charged_vcpu_hours == pytest.approx((120 - 12) / 60)


def test_exams_lie_at_equal_distances_and_hours_are_shared():
    used = timetable(730, 2.0, 1.5, 0.8)
    assert used[:3] == [0.8, 0.4, 0.0]
    assert used[365:367] == [0.8, 0.4]
    assert sum(used) == pytest.approx(2 * 1.5 * 0.8)
    assert sum(timetable(730, 2.5, 1.5, 0.8)) == pytest.approx(2.5 * 1.5 * 0.8)
    assert one_run(0.5, 3.0, 0.5, 1.0) == [0.5, 1.0, 1.0, 0.5]


def test_two_exams_a_day_that_use_more_than_is_earned_are_charged():
    busy = msgspec.structs.replace(cluster_usage(), cpu_seconds=ProcessSplit(workers=20.0))  # 1 vCPU on a t3a
    line = lines_of(cluster(busy, ExamPlan(8.0, 60.0)).month)["CPU above the credits"]
    # 480 h of 1 vCPU against 730 h of 0.4: about 480 - 292 vCPU hours, less what may stay borrowed
    assert line.quantity == pytest.approx(480 - 292, abs=576 / 60 + 4)


# Listener, spare instances, instance types


def test_a_tcp_listener_needs_fewer_capacity_units_and_more_cpu():
    many = msgspec.structs.replace(cluster_usage(), connections=6_000)
    tls, tcp = (lines_of(cluster(many, listener=kind).month)["Load balancer capacity"] for kind in ("tls", "tcp"))
    assert tls.quantity == pytest.approx(2.0 * 60)
    assert tcp.quantity < tls.quantity / 3
    sizes = [capacity(many, PLAN, SMALL, assumptions=Assumptions(listener=kind)) for kind in ("tls", "tcp")]
    # 424 handshakes in 50 s, 1.5 ms each, times 2.5
    assert sizes[1].vcpu_needed - sizes[0].vcpu_needed == pytest.approx(424 / 50 * 0.0015 * 2.5)


def test_a_spare_instance_is_paid_for_and_brings_a_redis_outside():
    cost = cluster(spare_instances=1)
    assert cost.capacity.instances == 2
    assert lines_of(cost.month)["Instances (2 x t3a.small)"].quantity == 2 * 730
    assert lines_of(cost.month)["ElastiCache for Valkey"].quantity == 2 * 730


def test_the_cheapest_type_comes_first_and_all_of_them_carry_the_exam():
    ranked = cheapest_type(cluster_usage(), PLAN, SINGAPORE)
    months = [cost.month.usd for _, cost in ranked]
    assert months == sorted(months)
    assert {"t3a.small", "t4g.small", "c7g.large"} <= {name for name, _ in ranked}
    assert all(cost.capacity.instances >= 1 for _, cost in ranked)


def test_a_family_has_its_own_cpu_factor_unless_one_is_given():
    slow = capacity(cluster_usage(), PLAN, SMALL)
    fast = capacity(cluster_usage(), PLAN, SINGAPORE.instance("c7g.large"))
    assert (slow.cpu_factor, fast.cpu_factor) == (2.5, 1.5)
    assert capacity(cluster_usage(), PLAN, SMALL, assumptions=Assumptions(ec2_cpu_factor=3.0)).cpu_factor == 3.0


# Other services


def test_appsync_events_and_iot_core_replace_the_gateways_lines_only():
    exam = stretch_serverless(serverless_usage(), PLAN, serverless_opening())
    month = serverless().month
    appsync, iot = alternatives(exam, month, 20.0, SINGAPORE)
    gateway = sum(
        lines_of(month)[name].usd for name in ("Messages from clients", "Messages to clients", "Connection minutes")
    )
    assert appsync.rest_usd == pytest.approx(month.usd - gateway)
    # 700 bytes a report are less than a step of 5 KB, so messages are messages
    operations = (exam.messages_in + exam.messages_out + 2 * exam.connects) * 20
    assert appsync.usd - appsync.rest_usd == pytest.approx(
        operations * 1e-6 + (exam.connection_minutes + exam.connects / 2) * 20 * 0.08e-6
    )
    assert iot.usd > appsync.usd
