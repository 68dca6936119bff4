"""From students, hours and intervals to units: what follows from the protocol, and what the coefficients say."""

import math

import msgspec
import pytest

from compare.bill.cost import ExamPlan, serverless_cost
from compare.bill.prices import load_prices
from compare.bill.stretch import CostError, stretch_serverless
from compare.model.calibration import Equation, shipped, solve
from compare.model.units import Exam, cluster_usage, events, frames_to_proctors, serverless_usage

SINGAPORE = load_prices("ap-southeast-1")
PAPER = Exam(
    students=1_000,
    hours=3.0,
    interval=5.0,
    client="paper",
    acks="none",
    proctors_per_exam=0,
    drops_per_hour=0.0,
    changes_per_hour=120.0,
)


def usage(**changes):
    return serverless_usage(msgspec.structs.replace(Exam(students=500), **changes), shipped())


def test_the_papers_example_is_2_16_million_frames_and_180_000_minutes():
    happened = events(PAPER, shipped())
    assert happened.changes + happened.sames == pytest.approx(2_160_000)
    used = serverless_usage(PAPER, shipped())
    assert used.connection_minutes == pytest.approx(180_000, rel=0.03)  # all are there after ten minutes


def test_a_change_takes_the_place_of_a_heartbeat():
    happened = events(Exam(students=100, hours=1.0, interval=15.0, changes_per_hour=60.0), shipped())
    assert happened.changes == pytest.approx(6_000)
    assert happened.changes + happened.sames == pytest.approx(100 * 240)


def test_the_ack_policy_decides_how_many_frames_come_back():
    alone = {"proctors_per_exam": 0, "drops_per_hour": 0.0}
    out = {acks: usage(acks=acks, **alone).messages_out for acks in ("none", "changes", "all")}
    happened = events(msgspec.structs.replace(Exam(students=500), **alone), shipped())
    assert out["changes"] - out["none"] == pytest.approx(happened.changes + 500, abs=2)
    assert out["all"] - out["changes"] == pytest.approx(happened.sames, abs=2)


def test_each_proctor_gets_each_change():
    one, three = (events(Exam(students=500, proctors_per_exam=number), shipped()) for number in (1, 3))
    assert three.publications == 3 * one.publications


def test_splitting_students_into_exams_spares_nobody_a_change_but_shrinks_snapshots():
    together, apart = (events(Exam(students=500, exams=n, proctors_per_exam=1), shipped()) for n in (1, 10))
    assert together.publications == apart.publications
    assert together.snapshot_views == pytest.approx(apart.snapshot_views)
    assert apart.watches == 10 * together.watches


def test_the_cluster_puts_together_what_falls_into_a_tick():
    quiet = events(Exam(students=10), shipped())
    busy = events(Exam(students=10_000, changes_per_hour=600), shipped())
    assert frames_to_proctors(quiet, 2) == pytest.approx(quiet.publications, rel=0.01)
    assert frames_to_proctors(busy, 2) < busy.publications / 5


def test_twice_the_students_use_twice_the_units():
    one, two = usage(students=500), usage(students=1_000)
    for field in ("messages_in", "messages_out", "dynamodb_write_units", "egress_bytes", "connection_minutes"):
        assert getattr(two, field) == pytest.approx(2 * getattr(one, field), rel=0.02)
    small, opening = cluster_usage(Exam(students=500), shipped())
    large, _ = cluster_usage(Exam(students=1_000), shipped())
    assert large.connections - small.connections == 500
    assert opening.connects < small.connects
    assert opening.cpu_seconds.total < small.cpu_seconds.total


def test_the_opening_holds_all_joins():
    whole, opening = cluster_usage(Exam(students=500, drops_per_hour=0.0), shipped())
    assert opening.connects == whole.connects
    assert opening.duration_seconds == 600


def test_a_bill_made_of_the_model_is_the_sum_of_its_lines_and_counts_the_cut_after_two_hours():
    exam = Exam(students=1_000, hours=3.0, drops_per_hour=0.0)
    used = serverless_usage(exam, shipped())
    assert stretch_serverless(used, ExamPlan(3.0, 1.0)).connects == used.connects + 1_000 + exam.proctors
    cost = serverless_cost(used, ExamPlan(3.0, 8.0), SINGAPORE)
    assert cost.month.usd == pytest.approx(math.fsum(line.usd for line in cost.month.lines))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"students": 0}, "--students: 0 is out of range; give 1 to 5,000,000"),
        ({"interval": 0.1}, "--interval: 0.1 is out of range"),
        ({"hours": 25}, "--hours: 25 is out of range"),
        ({"exams": 600}, "--exams: 600 exams for 500 students leave some empty"),
        ({"changes_per_hour": float("nan")}, "--changes: nan is out of range"),
    ],
)
def test_an_impossible_exam_names_the_option(changes, says):
    with pytest.raises(CostError, match=says.split(";")[0]):
        usage(**changes)


# Solving for coefficients


def test_coefficients_are_found_again_from_sums():
    true = {"change": 0.8, "same": 0.5, "join": 2.0}
    counts = [
        {"change": 100, "same": 900, "join": 0},
        {"change": 300, "same": 300, "join": 200},
        {"change": 10, "same": 700, "join": 50},
    ]
    equations = [Equation(row, sum(true[kind] * number for kind, number in row.items())) for row in counts]
    found = solve(equations, {"change": 1.0, "same": 1.0, "join": 1.0})
    for kind, value in true.items():
        assert found[kind] == pytest.approx(value, rel=0.15)


def test_what_no_run_tells_stays_where_it_was():
    found = solve([Equation({"change": 100.0}, 80.0)], {"change": 2.0, "same": 0.7})
    assert found["change"] == pytest.approx(0.8, rel=0.02)
    assert found["same"] == pytest.approx(0.7)


def test_no_coefficient_is_below_zero():
    equations = [Equation({"change": 100, "same": 100}, 50.0), Equation({"change": 100, "same": 10}, 60.0)]
    assert min(solve(equations, {"change": 0.5, "same": 0.1}).values()) >= 0
