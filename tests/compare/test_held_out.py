"""Coefficients from runs of other sizes say what a run of 1,000 students used: the results in `measured/` are of `compare run`."""

from pathlib import Path

import msgspec
import pytest

from compare.calibration import shipped
from compare.model import Exam, cluster_usage, frames_to_proctors, serverless_usage
from compare.observed import calibrate, parts
from compare.result import decode_result
from compare.usage import ClusterUsage, ServerlessUsage

FOLDER = Path(__file__).with_name("measured")
SERVERLESS = ("lambda-200", "lambda-200-paper", "lambda-150-four-proctors", "lambda-1600")
CLUSTER = ("ec2-200", "ec2-2000", "ec2-600-six-proctors")
CLOSE = 0.15


def result(name):
    return decode_result((FOLDER / f"{name}.json").read_bytes())


@pytest.fixture(scope="module")
def fitted():
    """From runs none of which has 1,000 students."""
    return calibrate([result(name) for name in (*SERVERLESS, *CLUSTER)], shipped(), provisional=True)


def predicted(counts, coefficients):
    return sum(number * coefficients.get(kind, 0.0) for kind, number in counts.items())


def test_units_and_cpu_of_1000_students_on_the_serverless_side(fitted):
    known = fitted.serverless
    expected = dict.fromkeys(("cpu", "reads", "writes", "in", "out", "bytes"), 0.0)
    measured = dict(expected)
    for part in parts([result("lambda-1000")]):
        happened, used = part.happened, part.used
        assert isinstance(used, ServerlessUsage)
        message = {
            "join": happened.student_connects,
            "change": happened.changes,
            "same": happened.sames,
            "watch": happened.watches,
        }
        swept = {"sweep": happened.exams * happened.seconds / 10, "check": happened.student_seconds / 10}
        units = {**message, **swept, "connect": happened.connects, "disconnect": happened.disconnects}
        out = happened.publications + happened.acks + happened.student_connects + happened.watches
        expected["cpu"] += known.dot("cpu_ms", {**message, "post": out})
        expected["reads"] += known.dot("read_units", units)
        expected["writes"] += known.dot("write_units", units)
        expected["in"] += happened.frames_in
        expected["out"] += out
        sizes = {"ack": happened.acks, "update": happened.publications, "joined": happened.student_connects}
        expected["bytes"] += predicted({**sizes, "snapshot_view": happened.snapshot_views}, known.bytes)
        measured["cpu"] += used.functions["message"].handler_cpu_ms
        measured["reads"] += used.dynamodb_read_units
        measured["writes"] += used.dynamodb_write_units
        measured["in"] += used.messages_in
        measured["out"] += used.messages_out
        measured["bytes"] += used.egress_bytes
    for name, value in expected.items():
        assert value == pytest.approx(measured[name], rel=CLOSE), name


def test_cpu_frames_and_bytes_of_1000_students_on_the_cluster(fitted):
    known = fitted.cluster
    expected = dict.fromkeys(("cpu", "frames", "in", "out"), 0.0)
    measured = dict(expected)
    for part in parts([result("ec2-1000")]):
        happened, used = part.happened, part.used
        assert isinstance(used, ClusterUsage)
        out = frames_to_proctors(happened, 2) + happened.acks + happened.student_connects + happened.watches
        counts = {
            "connect": happened.connects,
            "change": happened.changes,
            "same": happened.sames,
            "frame_out": out,
            "view": happened.snapshot_views,
            "entry": happened.entries,
            "second": happened.seconds,
            "worker_second": 2 * happened.seconds,
        }
        expected["cpu"] += sum(predicted(counts, values) for values in known.cpu_ms.values()) / 1000
        expected["frames"] += out
        expected["in"] += happened.student_connects * 465 + predicted(
            {"report_in": happened.changes, "beat_in": happened.sames}, known.bytes
        )
        sizes = {"ack": happened.acks, "update": happened.publications, "joined": happened.student_connects}
        expected["out"] += predicted({**sizes, "snapshot_view": happened.snapshot_views}, known.bytes)
        measured["cpu"] += used.cpu_seconds.total
        measured["frames"] += used.frames_out
        measured["in"] += used.ingress_bytes
        measured["out"] += used.egress_bytes
    for name, value in expected.items():
        assert value == pytest.approx(measured[name], rel=CLOSE), name


def test_the_95th_percentile_of_1000_students_lies_between_those_of_fewer_and_more():
    def p95(name):
        return result(name).modes["ec2"].latency_ms.delivery.p95

    between = (p95("ec2-200") * p95("ec2-2000")) ** 0.5
    assert between / 2 <= p95("ec2-1000") <= 2 * between


def test_memory_of_1000_connections(fitted):
    used = result("ec2-1000").modes["ec2"].usage
    assert isinstance(used, ClusterUsage)
    idle = sum(fitted.cluster.idle_bytes.values())
    assert idle + 1_005 * fitted.cluster.connection_bytes == pytest.approx(used.memory_bytes.total, rel=CLOSE)


def test_the_coefficients_in_the_package_come_from_such_runs():
    assert shipped().runs
    for residual in shipped().residuals:
        # with six proctors the cluster sends more snapshots than its schedule asks for
        assert residual.worst_percent < (60 if residual.quantity == "cluster bytes to clients" else 15)
    exam = Exam(students=1_000, hours=1.0, interval=5.0)
    whole, _ = cluster_usage(exam, shipped())
    assert whole.cpu_seconds.total > 0
    assert serverless_usage(exam, shipped()).dynamodb_write_units > 0
    assert msgspec.json.decode(msgspec.json.encode(shipped()))["provisional"] is True
