"""docs/cost-model.md, recomputed by its own method: plain arithmetic, none of the program's functions, a month of each."""

import math
import re
from pathlib import Path

import pytest

from compare.advice.choice import Case, price
from compare.bill.assumptions import Assumptions
from compare.bill.prices import load_prices
from compare.model.calibration import load
from compare.model.units import Exam

PAGE = Path(__file__).parents[3] / "docs" / "cost-model.md"
COEFFICIENTS = Path(__file__).parents[1] / "example_coefficients.json"
GIB = 2**30

S, H, P, INTERVAL, c, d, SITTINGS = 1_000, 2.0, 2, 15.0, 60.0, 0.2, 8
JOINS = S + S * d * H
CHANGES = S * c * H
BEATS = S * 3600 * H / INTERVAL - CHANGES
WATCHES = P * (1 + 60 * H)
ACKS = JOINS + CHANGES
SHOWN = P * (CHANGES + JOINS + S * d * H)
CONNECTS = JOINS + P
DISCONNECTS = S + S * d * H
ENTRIES = 3.5 * S + 2 * S * H + 2 * S * d * H
SWEEPS = 3600 * H / 10
CHECKS = S * 3600 * H / 10
VIEWS = WATCHES * S
BYTES_OUT = ACKS * 75 + SHOWN * 700 + JOINS * 180 + VIEWS * 450


@pytest.fixture(scope="module")
def priced():
    exam = Exam(students=S, hours=H)
    given = Assumptions(instance_type="t3a.small")
    return price(Case(exam, SITTINGS, load_prices("ap-southeast-1"), load(COEFFICIENTS), given, "scheduled"))


def serverless_by_hand():
    frames_in = JOINS + CHANGES + BEATS + WATCHES
    snapshot = S * 450
    pages, rest = divmod(snapshot, 96 * 1024)
    steps = pages * 3 + math.ceil(rest / 32768)
    out = SHOWN + ACKS + JOINS + WATCHES * steps
    minutes = S * (60 * H - 5) + P * 60 * H + CONNECTS / 2
    invocations = frames_in + 2 * CONNECTS + DISCONNECTS + SWEEPS
    posts = SHOWN + ACKS + JOINS + WATCHES * math.ceil(snapshot / (96 * 1024))
    share = 1769 / 256
    message = (JOINS * 1.0 + CHANGES * 0.8 + BEATS * 0.5 + WATCHES * 2.0 + posts * 0.2) * share + frames_in * 0.5
    message += 10 * (JOINS * 3 + CHANGES * 2 + BEATS + WATCHES * 4)  # reads
    message += 10 * (CHANGES + BEATS + WATCHES) + 15 * 1.5 * JOINS + 10 * posts
    authorizer = CONNECTS * (0.3 * share + 0.5)
    connect = CONNECTS * (0.5 * share + 20 + 0.5)
    disconnect = DISCONNECTS * (1.5 * share + 10 * 2 + 10 + 15 + 10 * 2 + 0.5)
    sweep = (
        (SWEEPS * 2.0 + CHECKS * 0.03) * share + 10 * SWEEPS * 5 + 10 * (SWEEPS + CHECKS * 0.02) + (10 + 0.5) * SWEEPS
    )
    gb_seconds = (message + authorizer + connect + disconnect + sweep) / 1000 * 256 / 1024
    environments = math.ceil(1.33 * frames_in / 7200 * 0.050)
    starts = environments + 1 + 2 * round(CONNECTS / 100) + round(DISCONNECTS / 100)
    writes = JOINS * 6 + CHANGES + BEATS + WATCHES + SWEEPS * 2 + CHECKS * 0.02 + CONNECTS + DISCONNECTS * 5
    reads = JOINS * 3 + CHANGES * 2 + BEATS + WATCHES * 8 + SWEEPS * 6 + CHECKS * 0.12 + CONNECTS + DISCONNECTS * 2.5
    reads += VIEWS * 0.2
    log_gb = 430 * environments * 120 / GIB
    per_sitting = {
        "Messages from clients": (frames_in, 1.15e-6),
        "Messages to clients": (out, 1.15e-6),
        "Connection minutes": (minutes, 0.288e-6),
        "Token requests (HTTP API)": (CONNECTS, 1.25e-6),
        "Lambda requests": (invocations, 0.2e-6),
        "Lambda compute (arm64)": (gb_seconds, 1.33334e-5),
        "Lambda cold starts (arm64)": (starts * 0.060 * 256 / 1024, 1.33334e-5),
        "DynamoDB writes": (writes, 0.71e-6),
        "DynamoDB reads": (reads, 0.1425e-6),
        "Journal storage": (ENTRIES * 1024 / GIB * 12, 0.285),
        "SQS requests": (3 * SWEEPS, 0.4e-6),
        "Log ingestion": (log_gb, 0.70),
        "Log storage": (log_gb, 0.03),
        "Data to the internet": ((BYTES_OUT + out * 80) / GIB, 0.12),
    }
    month = {name: quantity * SITTINGS * usd for name, (quantity, usd) in per_sitting.items()}
    return month | {
        "SQS polling by Lambda": 3 * 15 * 60 * 730 * 0.4e-6,
        "CloudWatch alarms": 15 * 0.10,
        "CloudWatch dashboards": 3.0,
        "CloudWatch metrics": (3 + 45 * H * SITTINGS / 730) * 0.30,
        "Secrets": 2 * 0.40,
        "Reads of secrets": 10_000 * 5e-6,
        "Encryption key": 1.0,
        "Encryption requests": 20_000 * 3e-6,
    }


def cluster_by_hand():
    # two workers put together what they save within half of a tick of 50 ms
    rate = SHOWN / 7200 / P / 2
    frames_out = SHOWN / (1 + rate * 0.025) + ACKS + WATCHES + JOINS
    into = JOINS * 465 + CHANGES * 340 + BEATS * 70
    out = BYTES_OUT + frames_out * 80
    capacity = max(CONNECTS / 7200 / 50, (S + P) / 3_000, (into + out) / GIB / H) * H
    running = (H + 1) * SITTINGS
    return {
        "Instances (1 x t3a.small)": running * 0.0236,
        "CPU above the credits": 0.0,
        "Load balancer": 730 * 0.0252,
        "Load balancer capacity": capacity * SITTINGS * 0.006,
        "Load balancer to other zones": 2 * (into + out) / GIB / 2 * SITTINGS * 0.01,
        "Public IPv4 addresses": (running + 2 * 730) * 0.005,
        "Disks (gp3)": 8 * running / 730 * 0.096,
        "DynamoDB writes (journal)": ENTRIES * SITTINGS * 0.71e-6,
        "Journal storage": ENTRIES * 1024 / GIB * 12 * SITTINGS * 0.285,
        "Data to the internet": out / GIB * SITTINGS * 0.12,
        "CloudWatch alarms": 6 * 0.10,
        "CloudWatch dashboards": 3.0,
        "CloudWatch metrics": 2 * 6 * running / 730 * 0.30,
        "Secrets": 2 * 0.40,
        "Reads of secrets": 10_000 * 5e-6,
        "Encryption key": 1.0,
        "Encryption requests": 20_000 * 3e-6,
        "Log ingestion": 0.1 * 0.70,
        "DNS zone": 0.50,
    }


def cpu_seconds(joins, changes, beats, shown, watches, entries, seconds):
    """Of workers, Redis, supervisor and journal on one instance with two workers."""
    out = shown / (1 + shown / seconds / P / 2 * 0.025) + 2 * joins + changes + watches
    connects = joins + P
    workers = connects * 0.6 + changes * 0.4 + beats * 0.1 + out * 0.03 + watches * S * 0.01 + seconds * 2 * 6
    redis = connects * 0.1 + changes * 0.1 + beats * 0.01 + seconds * 4
    return (workers + redis + seconds * 0.4 + entries * 0.25 + seconds * 2) / 1000


def of_program(bill):
    return {line.name: line.usd for line in bill.lines}


def of_page(heading):
    """The table under a heading of the worked example: name, USD."""
    text = PAGE.read_text().split(heading, 1)[1].split("\n\n", 2)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {row[0]: float(row[3]) for row in rows}


def test_a_serverless_month_line_by_line(priced):
    by_hand, program = serverless_by_hand(), of_program(priced.serverless.month)
    assert by_hand.keys() == program.keys()
    for name, usd in by_hand.items():
        assert program[name] == pytest.approx(usd, rel=2e-4, abs=1e-6), name
    assert priced.serverless.month.usd == pytest.approx(sum(by_hand.values()), rel=1e-4)


def test_a_cluster_month_line_by_line(priced):
    scheduled = next(bill for bill in priced.cluster.other_months if bill.variant == "scheduled")
    by_hand, program = cluster_by_hand(), of_program(scheduled)
    assert by_hand.keys() == program.keys()
    for name, usd in by_hand.items():
        assert program[name] == pytest.approx(usd, rel=2e-4, abs=1e-6), name
    assert scheduled.usd == pytest.approx(sum(by_hand.values()), rel=1e-4)


def test_one_t3a_small_is_enough_and_stays_within_its_credits(priced):
    assert priced.cluster.capacity.instances == 1
    # in the arrival 500 students are there on average, and all 1,000 join; the rest is what the arrival leaves of the whole
    here = 500 * 600
    drops = here * 0.2 / 3600
    joins, changes = 1_000 + drops, here * 60 / 3600
    watches = 2 * 11
    entries = 3.5 * 1_000 + 2 * 500 * 600 / 3600 + 2 * drops
    arrival = cpu_seconds(joins, changes, here / 15 - changes, 2 * (changes + joins + drops), watches, entries, 600)
    whole = cpu_seconds(JOINS, CHANGES, BEATS, SHOWN, WATCHES, ENTRIES, 7_200)
    vcpu = max(arrival / 600, (whole - arrival) / 6_600) * 2.5
    assert priced.cluster.capacity.vcpu_needed == pytest.approx(vcpu, rel=1e-3)
    assert vcpu < 0.4  # 20 % of two vCPUs: no credits are spent


@pytest.mark.parametrize(
    ("heading", "by_hand"),
    [
        ("Serverless, a month of 8 sittings:", serverless_by_hand),
        ("The cluster on one t3a.small, scheduled", cluster_by_hand),
    ],
)
def test_the_page_prints_these_figures(heading, by_hand):
    page = of_page(heading)
    expected = by_hand()
    assert page.keys() == expected.keys() | {"together"}
    for name, usd in expected.items():
        assert page[name] == pytest.approx(usd, abs=0.0006), name
    assert page["together"] == pytest.approx(sum(expected.values()), abs=0.002)


def test_the_pages_counts_are_those_of_its_formulas():
    text = PAGE.read_text()
    for count in (JOINS, CHANGES, BEATS, WATCHES, ACKS, SHOWN, CONNECTS, DISCONNECTS):
        assert f"{count:,.0f}" in text


def test_every_line_of_a_bill_is_explained_on_the_page(priced):
    text = PAGE.read_text()
    for bill in (priced.serverless.month, priced.cluster.month):
        for line in bill.lines:
            name = re.sub(r" \(.*", "", line.name)
            assert name in text or name.split()[0] in text, line.name
