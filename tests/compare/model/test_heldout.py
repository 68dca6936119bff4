"""Coefficients from runs of other sizes say what a run of 1,000 students used: the results in `measured/` are of `compare run`."""

from pathlib import Path

import msgspec
import pytest

from compare.bill.usage import ClusterUsage
from compare.model.calibration import decode, encode, load, shipped
from compare.model.heldout import CLOSE_PERCENT, examined, held_out
from compare.model.observed import calibrate
from compare.model.units import Exam, cluster_usage, serverless_usage
from compare.run.result import decode_result

FOLDER = Path(__file__).parents[1] / "measured"
SERVERLESS = ("lambda-200", "lambda-200-paper", "lambda-150-four-proctors", "lambda-1600")
CLUSTER = ("ec2-200", "ec2-2000", "ec2-600-six-proctors")
CLOSE = CLOSE_PERCENT / 100


def result(name):
    return decode_result((FOLDER / f"{name}.json").read_bytes())


@pytest.fixture(scope="module")
def fitted():
    """From runs none of which has 1,000 students, and from the coefficients that there were when they were made."""
    before = load(FOLDER / "before.json")
    return calibrate([result(name) for name in (*SERVERLESS, *CLUSTER)], before, provisional=True)


@pytest.mark.parametrize("name", ["lambda-1000", "ec2-1000"])
def test_cpu_frames_and_units_of_1000_students(fitted, name):
    """On a quiet machine. The bytes of the cluster are tested below: in these runs a defect had exams read again and again."""
    errors = [error for error in held_out([result(name)], fitted) if error.quantity != "cluster bytes to clients"]
    assert len(errors) >= 3
    for error in errors:
        assert error.worst_percent < CLOSE_PERCENT, error


def test_frames_and_bytes_of_1000_students_on_the_cluster():
    """Runs of 70 s on a busy machine, which moves their CPU time and not what they count; one has six proctors an exam."""
    runs = [result(f"counts-ec2-{name}") for name in ("200", "2000", "600-six-proctors")]
    counted = calibrate([result(name) for name in SERVERLESS] + runs, load(FOLDER / "before.json"), provisional=True)
    (explained,) = [error for error in counted.residuals if error.quantity == "cluster bytes to clients"]
    assert explained.worst_percent < 5
    errors = [error for error in held_out([result("counts-ec2-1000")], counted) if "cpu" not in error.quantity]
    assert {error.quantity for error in errors} == {
        "cluster frames out",
        "cluster bytes from clients",
        "cluster bytes to clients",
    }
    for error in errors:
        assert error.worst_percent < CLOSE_PERCENT, error


def test_coefficients_that_miss_are_found_out_and_made_provisional(fitted):
    """A calibration is tested when it is made: one in which a change costs nothing does not pass."""
    fitted = msgspec.structs.replace(fitted, provisional=False)
    assert not examined(fitted, [result("lambda-1000")]).provisional
    per = {kind: values | {"cpu_ms": 0.0} for kind, values in fitted.serverless.per.items()}
    wrong = msgspec.structs.replace(fitted, serverless=msgspec.structs.replace(fitted.serverless, per=per))
    found = examined(wrong, [result("lambda-1000")])
    assert found.provisional
    assert max(found.held_out, key=lambda error: error.worst_percent).quantity == "serverless cpu_ms"


def test_the_95th_percentile_of_1000_students_lies_between_those_of_fewer_and_more():
    def p95(name):
        return result(name).modes["ec2"].latency_ms.delivery.p95

    between = (p95("ec2-200") * p95("ec2-2000")) ** 0.5
    assert between / 2 <= p95("ec2-1000") <= 2 * between


def test_memory_of_1000_connections(fitted):
    used = result("ec2-1000").modes["ec2"].usage
    assert isinstance(used, ClusterUsage)
    idle = sum(fitted.cluster.idle_bytes.values())
    says = idle + 1_005 * fitted.cluster.connection_bytes
    # the most that a connection took in any run: instances are chosen by it
    assert (1 - CLOSE) * used.memory_bytes.total <= says <= 1.25 * used.memory_bytes.total


def test_the_coefficients_in_the_package_come_from_such_runs_or_say_that_they_do_not():
    found = shipped()
    assert found.runs
    assert found.provisional == ("provisional" in found.source)
    if not found.provisional:
        assert {error.quantity.split()[0] for error in found.held_out} == {"serverless", "cluster"}
        assert all(error.worst_percent < CLOSE_PERCENT for error in found.held_out)
    exam = Exam(students=1_000, hours=1.0, interval=5.0)
    whole, _ = cluster_usage(exam, found)
    assert whole.cpu_seconds.total > 0
    assert serverless_usage(exam, found).dynamodb_write_units > 0
    assert decode(encode(found)) == found
