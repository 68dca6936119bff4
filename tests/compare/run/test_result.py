"""result.json: what is written can be read again, and what can't be read is named."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_result import sample_result

from compare.run.result import (
    ResultError,
    decode_result,
    distribution,
    encode_result,
    environment_here,
    judge,
    summarise,
    where_words,
)


def test_a_summary_has_nearest_rank_percentiles():
    summary = summarise(range(1, 101))
    assert (summary.avg, summary.p50, summary.p90, summary.p95, summary.p99, summary.max) == (50.5, 50, 90, 95, 99, 100)
    assert summary.count == 100


def test_a_summary_of_one_and_of_none():
    assert summarise([3.0]).p99 == 3.0
    empty = summarise([])
    assert (empty.count, empty.max) == (0, 0.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_a_distribution_rises_from_the_smallest_to_the_largest_sample(samples):
    points = distribution(samples, "measured").points
    assert points[0][0] == min(samples)
    assert points[-1] == (max(samples), 1.0)
    assert list(points) == sorted(points)
    for value, share in points:
        assert share * len(samples) <= sum(sample <= value for sample in samples) + 1e-6


def test_a_distribution_stays_small_and_keeps_its_tail():
    points = distribution(range(100_000), "measured").points
    assert len(points) < 110
    assert (99_899, 0.999) in points


def test_a_result_survives_its_file():
    result = sample_result()
    data = encode_result(result)
    assert decode_result(data) == result
    assert data.endswith(b"}\n")
    assert encode_result(decode_result(data)) == data


def test_the_file_has_the_names_that_others_rely_on():
    written = json.loads(encode_result(sample_result()))
    assert written["schema"] == "proctorwire.compare.result/1"
    assert set(written) == {"schema", "workload", "environment", "modes", "verdict", "partial"}
    assert set(written["modes"]) == {"lambda", "ec2"}
    for mode in written["modes"].values():
        assert {"delivered", "lost", "duplicates", "false_offline", "offline_detection_s"} <= set(mode)
        assert {"cpu", "memory", "usage", "cost"} <= set(mode)
        for name in ("message", "round_trip", "delivery"):
            assert set(mode["latency_ms"][name]) == {"avg", "p50", "p90", "p95", "p99", "max", "count"}
    assert written["modes"]["lambda"]["latency_ms"]["basis"] == "emulated"
    assert written["modes"]["lambda"]["usage"]["kind"] == "serverless"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a result file"),
        (b"not json", "not a result file"),
        (b"\xff\xfe", "not a result file"),
        (b"{}", "not a result file"),
        (b'{"schema": "proctorwire.compare.result/9"}', "this version reads"),
        (b'{"schema": "proctorwire.compare.result/1"}', "damaged result file"),
    ],
)
def test_a_file_that_is_no_result_is_named_in_one_line(data, says):
    with pytest.raises(ResultError, match=says) as error:
        decode_result(data)
    assert "\n" not in str(error.value)


def test_a_damaged_field_is_named_with_its_place():
    damaged = encode_result(sample_result("ec2")).replace(b'"lost": 0', b'"lost": "none"')
    with pytest.raises(ResultError, match=r"lost|modes"):
        decode_result(damaged)


def test_the_verdict_says_which_is_cheaper_and_what_the_times_are():
    verdict = sample_result().verdict
    assert verdict.cheaper == "ec2"
    assert "emulated on this machine, not AWS's" in verdict.latency
    assert "measured on this machine" in verdict.latency
    assert verdict.losses.startswith("Nothing was lost")


def test_one_mode_has_a_verdict_without_a_winner():
    verdict = sample_result("lambda").verdict
    assert (verdict.cheaper, verdict.break_even) == (None, ())
    assert verdict.money.startswith("A month of 20 exams costs $")


def test_losses_are_named():
    result = sample_result(lost=3)
    assert result.anything_lost
    assert result.verdict.losses.startswith("serverless: 3 lost, 0 doubled, 0 wrongly offline")


def test_no_cost_and_no_mode_have_a_verdict_too():
    assert sample_result(with_cost=False).verdict.money == "No cost was worked out."
    assert judge({}).money == "No cost was worked out."


def test_a_real_deployment_is_measured_where_it_is():
    mode = sample_result("lambda").modes["lambda"]
    times = msgspec.structs.replace(mode.latency_ms, basis="measured")
    assert (
        where_words(msgspec.structs.replace(mode, where="abc.example", latency_ms=times)) == "measured on abc.example"
    )


def test_the_environment_of_this_machine():
    here = environment_here({"redis-server": "7.2"})
    assert here.cpu
    assert here.cores >= 1
    assert here.memory_bytes > 0
    assert here.versions["redis-server"] == "7.2"
    assert here.date.endswith("+00:00")
