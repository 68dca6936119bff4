"""The table and the page: well-formed, self-contained, escaped, honest about what was emulated."""

import io
import re
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console
from sample_result import EMPTY, sample_result

from compare.pages.markup import Markup, element, join
from compare.pages.parts import amount, milliseconds, money, unit_money
from compare.pages.report import html_report, terminal_table
from compare.pages.svg import linear_axis, log_axis
from compare.run.result import Result, decode_result, encode_result


def changed(result: Result, kind: str, **fields) -> Result:
    modes = {
        mode: msgspec.structs.replace(found, **fields) if mode == kind else found
        for mode, found in result.modes.items()
    }
    return msgspec.structs.replace(result, modes=modes)


def empty_of(result: Result) -> Result:
    """Nothing was ever delivered."""
    for mode, found in result.modes.items():
        times = msgspec.structs.replace(found.latency_ms, message=EMPTY, round_trip=EMPTY, delivery=EMPTY)
        offline = msgspec.structs.replace(found.offline_detection_s, summary=EMPTY)
        nothing = msgspec.structs.replace(found.delivery_distribution, points=())
        result = changed(
            result, mode, latency_ms=times, offline_detection_s=offline, delivery_distribution=nothing, delivered=0
        )
    return result


def parse(page: str) -> ElementTree.Element:
    """The page is XML but for its document type, so that any slip in nesting or escaping shows."""
    assert page.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def words(root: ElementTree.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def printed(result: Result, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(terminal_table(result))
    return capture.get()


RESULTS = {
    "both": sample_result(),
    "lambda only": sample_result("lambda"),
    "ec2 only": sample_result("ec2"),
    "lost": sample_result(lost=2),
    "without cost": sample_result(with_cost=False),
    "nothing delivered": empty_of(sample_result()),
    "partial": msgspec.structs.replace(sample_result("ec2"), partial=True, verdict=None),
    "no mode": msgspec.structs.replace(sample_result("ec2"), modes={}, verdict=None, partial=True),
    "no exam": sample_result(exams=0.0),
    "real deployment": changed(sample_result("lambda", with_cost=False), "lambda", cpu=None, memory=None, usage=None),
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_is_well_formed(name):
    root = parse(html_report(RESULTS[name]))
    assert root.tag == "html"
    assert root.find("body/main/section/h1").text


@pytest.mark.parametrize("name", RESULTS)
def test_the_table_prints(name):
    assert printed(RESULTS[name])


def test_the_page_loads_nothing():
    page = html_report(RESULTS["both"])
    root = parse(page)
    tags = {node.tag for node in root.iter()}
    assert not tags & {"script", "link", "img", "iframe", "object", "image", "use", "base", "form"}
    for node in root.iter():
        for name, value in node.attrib.items():
            assert name not in {"src", "srcset", "action", "onload"}
            if name == "href":
                assert value.startswith("#")
    assert "@import" not in page
    assert "url(" not in page


def test_references_lead_somewhere():
    root = parse(html_report(RESULTS["both"]))
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    targets = {node.attrib["href"].removeprefix("#") for node in root.iter("a")}
    assert targets
    assert targets <= set(ids)


def test_everything_from_outside_is_escaped():
    evil = '<script>alert("1")</script>&\''
    result = sample_result()
    result = changed(result, "lambda", problems=(evil,), where=evil)
    result = changed(result, "ec2", where=evil)
    environment = msgspec.structs.replace(result.environment, cpu=evil, versions={evil: evil})
    result = msgspec.structs.replace(result, environment=environment)
    page = html_report(result)
    assert "<script" not in page
    assert words(parse(page)).count('alert("1")') >= 4


def test_emulated_times_are_never_shown_as_those_of_aws():
    page = words(parse(html_report(RESULTS["both"])))
    assert page.count("emulated on this machine, not AWS's") >= 4
    table = printed(RESULTS["both"])
    heading = next(line for line in table.splitlines() if line.startswith("Latency"))
    assert re.search(r"emulated on this machine, not AWS's\s+measured on this machine", heading)


def test_every_figure_of_a_bill_carries_its_basis():
    root = parse(html_report(RESULTS["both"]))
    for table in root.iter("table"):
        heads = ["".join(cell.itertext()) for cell in table.findall("thead/tr/th")]
        if "unit price" in heads:
            for row in table.findall("tbody/tr"):
                if row.attrib.get("class") != "sum":
                    assert "".join(row[2].itertext()) in {"measured", "emulated", "modelled", "assumed"}


def test_the_page_says_first_what_a_headteacher_asks():
    result = RESULTS["both"]
    root = parse(html_report(result))
    saves, percent = result.verdict.saves_usd, result.verdict.saves_percent
    assert (
        root.find("body/main/section/h1").text == f"The cluster is cheaper: ${saves:.2f} less a month, {percent:.0f} %."
    )
    summary = words(root.find("body/main/section"))
    assert money(result.modes["lambda"].cost.month.usd) in summary
    assert money(result.modes["ec2"].cost.exam.usd) in summary
    assert "Nothing was lost: all 4,000 reports reached the proctors." in summary


def test_a_loss_is_in_the_summary():
    page = words(parse(html_report(RESULTS["lost"])))
    assert "serverless: 2 lost" in page
    assert "Nothing was lost" not in page


def test_undelivered_reports_are_not_called_delivered():
    page = words(parse(html_report(changed(RESULTS["ec2 only"], "ec2", delivered=3_990))))
    assert "Cluster: 3,990 of 4,000" in page
    assert "all 4,000 reports" not in page


def test_one_mode_is_no_comparison():
    page = words(parse(html_report(RESULTS["lambda only"])))
    assert "is cheaper" not in page
    assert "Cluster" not in page
    assert "not AWS's" in page


def test_a_stopped_run_says_so():
    assert "stopped before its end" in words(parse(html_report(RESULTS["partial"])))
    assert "Stopped early" in printed(RESULTS["partial"])


def test_the_page_can_be_made_again_from_the_file():
    result = RESULTS["both"]
    assert html_report(decode_result(encode_result(result))) == html_report(result)


def test_plots_have_names_and_their_data_beside_them():
    root = parse(html_report(RESULTS["both"]))
    plots = [node for node in root.iter("svg") if node.attrib.get("role") == "img"]
    assert len(plots) == 8
    assert all(plot.find("title").text for plot in plots)
    for figure in root.iter("figure"):
        assert figure.findall(".//svg")


def test_no_plot_draws_outside_of_itself():
    root = parse(html_report(RESULTS["both"]))
    for plot in root.iter("svg"):
        _, _, width, height = map(float, plot.attrib["viewBox"].split())
        for path in plot.iter("path"):
            numbers = [float(number) for number in re.findall(r"[\d.]+", path.attrib["d"])]
            if plot.attrib.get("role") == "img":
                assert all(0 <= x <= width for x in numbers[::2])
                assert all(0 <= y <= height for y in numbers[1::2])
        for bar in plot.iter("rect"):
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) < width


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "$0.00"),
        (0.00005, "< $0.0001"),
        (0.0042, "$0.0042"),
        (0.38, "$0.38"),
        (53.736, "$53.74"),
        (1345.7, "$1,346"),
    ],
)
def test_money(usd, text):
    assert money(usd) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (1.15e-6, "$1.15 / million"),
        (1.425e-7, "$0.1425 / million"),
        (0.0236, "$0.0236"),
        (0.5, "$0.50"),
        (3.0, "$3.00"),
    ],
)
def test_unit_prices_are_read_without_counting_zeros(usd, text):
    assert unit_money(usd) == text


def test_other_figures():
    assert (milliseconds(6.94), milliseconds(1234.4)) == ("6.9", "1,234")
    assert (amount(864_060.0), amount(4.0), amount(0.04384)) == ("864,060", "4", "0.0438")


def test_axes_have_round_ticks():
    assert [label for _, label in linear_axis("", 207.0, "$").ticks] == ["$0", "$50", "$100", "$150", "$200"]
    assert [label for _, label in linear_axis("", 1.0).ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    axis = log_axis("", 0.8, 247.0)
    assert (axis.low, axis.high) == (0.5, 500.0)
    assert linear_axis("", 0.0).high == 1.0


def test_markup_escapes_what_is_not_markup():
    assert element("p", "a < b", class_='x"y') == '<p class="x&quot;y">a &lt; b</p>'
    assert join("<", Markup("<br />"), None) == "&lt;<br />"
    assert element("div") == "<div></div>"
