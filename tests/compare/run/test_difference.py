"""What changed between results, and when it is said to be more than noise."""

import json

import click
import msgspec
import pytest
from click.testing import CliRunner
from sample_result import sample_result

from compare.commands import diff as diff_module
from compare.commands import register
from compare.run.difference import difference, load_side, welch
from compare.run.result import ResultError, encode_result


@pytest.fixture
def run():
    group = click.Group("compare")
    register(group)
    return lambda *arguments: CliRunner().invoke(group, list(arguments), standalone_mode=False)


def slower(result, factor):
    modes = {}
    for mode, found in result.modes.items():
        delivery = found.latency_ms.delivery
        times = msgspec.structs.replace(delivery, p95=delivery.p95 * factor)
        modes[mode] = msgspec.structs.replace(
            found, latency_ms=msgspec.structs.replace(found.latency_ms, delivery=times)
        )
    return msgspec.structs.replace(result, modes=modes)


def rows_of(found):
    return {(row.mode, row.name): row for row in found.rows}


# 1, 2, 3 against 3, 4, 5: a difference of 2 with a standard error of the root of 2/3, four degrees of freedom
def test_the_interval_of_a_difference():
    low, high = welch([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])
    reach = 2.776 * (2 / 3) ** 0.5
    assert (low, high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))


def test_one_value_has_no_interval_and_equal_ones_have_no_width():
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [3.0, 3.0]) == (2.0, 2.0)


def test_a_change_beyond_noise_is_named_and_one_within_is_not():
    base = sample_result()
    before = [slower(base, factor) for factor in (1.00, 1.01, 0.99)]
    after = [slower(base, factor) for factor in (1.50, 1.52, 1.49)]
    noisy = [slower(base, factor) for factor in (0.7, 1.0, 1.4)]
    assert rows_of(difference(before, after))["ec2", "delivery p95"].direction == "worse"
    assert rows_of(difference(after, before))["ec2", "delivery p95"].direction == "better"
    assert rows_of(difference(before, noisy))["ec2", "delivery p95"].direction == "same"
    assert rows_of(difference(before[:1], after[:1]))["ec2", "delivery p95"].direction == "unknown"


def test_figures_keep_their_basis():
    rows = rows_of(difference([sample_result()], [sample_result()]))
    assert rows["lambda", "delivery p95"].basis == "emulated"
    assert rows["ec2", "delivery p95"].basis == "measured"
    assert rows["ec2", "month"].basis == "modelled"
    assert rows["lambda", "write units, a report"].basis == "emulated"


def test_only_what_both_sides_ran_is_compared():
    found = difference([sample_result()], [sample_result("ec2")])
    assert {row.mode for row in found.rows} == {"ec2"}
    with pytest.raises(ResultError, match="no deployment in common"):
        difference([sample_result("lambda")], [sample_result("ec2")])


def test_a_folder_is_all_results_below_it(tmp_path):
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_bytes(encode_result(sample_result()))
    assert len(load_side(tmp_path)) == 2


def test_the_command_says_worse_and_exits_with_1(run, tmp_path):
    for side, factors in (("a", (1.0, 1.01)), ("b", (2.0, 2.01))):
        for number, factor in enumerate(factors):
            folder = tmp_path / side / str(number)
            folder.mkdir(parents=True)
            (folder / "result.json").write_bytes(encode_result(slower(sample_result(), factor)))
    shown = run("diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert shown.return_value == 1
    assert "worse" in shown.output
    same = run("diff", str(tmp_path / "a"), str(tmp_path / "a"), "--json")
    assert same.return_value == 0
    assert json.loads(same.output)["runs_before"] == 2


def test_runs_are_made_in_turns(run, tmp_path, monkeypatch):
    order = []

    def made(side, text, folder):
        order.append((side, text))
        folder.mkdir(parents=True)
        (folder / "result.json").write_bytes(encode_result(sample_result("ec2")))

    monkeypatch.setattr(diff_module, "_run", made)
    shown = run("diff", "--a", "--mode ec2", "--b", "--mode ec2 --seed 2", "--repeat", "2", "--quiet")
    assert shown.return_value == 0, shown.output
    assert [side for side, _ in order] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "A B: 0 given"),
        (["/nowhere/a.json", "/nowhere/b.json"], "A B: can't read"),
        (["--a", "--mode ec2"], "--a, --b: give both"),
        (["--a", "x", "--b", "y", "one", "two"], "give either them or two results"),
        (["--a", "--students nobody", "--b", "--students 1", "--repeat", "1"], "--a: Invalid value for '--students'"),
        (["--a", "'", "--b", "y"], "--a: No closing quotation"),
    ],
)
def test_bad_input_names_the_option(arguments, says):
    group = click.Group("compare")
    register(group)
    shown = CliRunner().invoke(group, ["diff", *arguments])
    assert shown.exit_code == 2
    assert says in shown.output
