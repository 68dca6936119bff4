"""The published study beside this project, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compare.advice import paper
from compare.advice.plan import Day
from compare.bill.lines import CostLine
from compare.pages.day import hours
from compare.pages.markup import Markup, element, join
from compare.pages.parts import (
    BASIS_WORDS,
    amount,
    basis_mark,
    both_widths,
    data_table,
    document,
    milliseconds,
    money,
    unit_money,
)
from compare.pages.svg import Bar, bar_plot

STUDY = (
    "E. C. Nugroho, A Horizontally Scalable WebSocket Architecture for Cost-Effective Online Examination Proctoring "
    "System on AWS "
    "Cloud Infrastructure."
)


def paper_page(found: Mapping[str, Any], day: Day) -> str:
    """The page with the parts that were worked out, a to d; `day` is that of part d."""
    sections: list[Markup | None] = [_summary(found)]
    if "a" in found:
        sections.append(_example(found["a"]))
    if "b" in found:
        sections.append(_stress(found["b"]))
    if "c" in found:
        sections.append(_month(found["c"]))
    if "d" in found:
        sections += [_big(found["d"]), *hours(day, found["d"].day)]
    sections.append(_method(day))
    return document(
        "Proctorwire: the published study beside ours",
        "beside the published study",
        f"prices of {day.prices.region}, {day.prices.as_of}",
        sections,
        "Made by compare paper.",
    )


def _summary(found: Mapping[str, Any]) -> Markup:
    words = []
    if "a" in found:
        example: paper.ExampleBill = found["a"]
        words.append(
            f"Its example costs {money(example.messages_usd + example.minutes_usd)} by its own arithmetic and "
            f"{money(example.whole_usd)} with everything that such an exam runs."
        )
    if "c" in found:
        month: paper.MonthBill = found["c"]
        words.append(
            f"The month that explains its bill would cost {money(month.serverless_usd)} on our serverless side and "
            f"{money(month.cluster_always_on_usd)} on our cluster."
        )
    if "d" in found:
        big: paper.BigExam = found["d"]
        words.append(
            f"Its exam of 10,000 students ran on {big.their_instances} instances; ours is modelled to need "
            f"{big.our_instances}, "
            f"{big.with_redundancy} with one to spare."
        )
    return element(
        "section",
        element("h1", "The published study, and the same exams on Proctorwire."),
        element("p", STUDY, class_="soft"),
        *[element("p", sentence, class_="lead") for sentence in words],
        class_="summary",
    )


def _example(found: paper.ExampleBill) -> Markup:
    def rows(lines: Sequence[CostLine], where: str) -> list[list[str]]:
        return [
            [
                line.name,
                where,
                join(f"{amount(line.quantity)} ", element("small", line.unit)),
                basis_mark(line.basis),
                unit_money(line.unit_price_usd),
                f"${line.usd:,.3f}",
            ]
            for line in sorted(lines, key=lambda line: -line.usd)
        ]

    return element(
        "section",
        element("h2", "a  Its example: 1,000 students, 3 hours, a message every 5 seconds"),
        element(
            "p",
            f"{found.messages:,.0f} messages ({money(found.messages_usd)}) and {found.minutes:,.0f} connection minutes "
            f"({money(found.minutes_usd)}); {money(found.after_free_tier_usd)} after the free tier of an account "
            f"opened before July "
            f"2025. Handing every message on to one proctor, as its Figure 6 does, is {money(found.passed_on_usd)} more.",
        ),
        data_table(
            "The same messages on our serverless side, one proctor",
            ["line", "in its arithmetic", "quantity", "", "unit price", "USD"],
            [*rows(found.counted, "yes"), *rows(found.left_out, "no")],
            total=["together", "", "", "", "", money(found.whole_usd)],
            words=(0, 1, 3),
        ),
    )


def _stress(found: paper.StressTest) -> Markup:
    def cells(row: paper.StressRow) -> list[str]:
        return [
            f"{theirs:g} / {'-' if ours is None else milliseconds(ours)}"
            for theirs, ours in zip(row.theirs, row.ours, strict=True)
        ]

    return element(
        "section",
        element("h2", "b  Table 1: the stress test"),
        element(
            "p",
            f"Theirs on two t3a.small in 30 minutes; ours in {found.minutes:g} minutes on {found.where}, not on "
            f"AWS: no network lies "
            "between, and two processes of one machine stand for two instances.",
            class_="soft",
        ),
        data_table(
            "Theirs / ours",
            ["", "average", "90 %", "95 %", "99 %", "ours"],
            [
                [
                    join(f"{row.name}, {row.unit}", element("small", row.words)),
                    *cells(row),
                    basis_mark(row.basis),
                ]
                for row in found.rows
            ],
            words=(0, 5),
        ),
        element(
            "p",
            f"A message took {found.their_cpu_ms_a_message:.1f} ms of CPU there, {found.our_cpu_ms_a_message:.2f} ms here "
            f"(modelled for a t3a vCPU). Lost: {found.lost}.",
            class_="note",
        ),
        *[element("p", problem, class_="note") for problem in found.problems],
    )


def _month(found: paper.MonthBill) -> Markup:
    bars = [
        Bar(
            "Theirs, API Gateway alone, before",
            "as printed",
            paper.GATEWAY_BEFORE,
            money(paper.GATEWAY_BEFORE),
            "lambda",
        ),
        Bar("Ours, serverless, every 5 s", "modelled", found.serverless_usd, money(found.serverless_usd), "lambda"),
        Bar(
            "Ours, serverless, every 15 s",
            "modelled",
            found.relaxed_serverless_usd,
            money(found.relaxed_serverless_usd),
            "lambda",
        ),
        Bar("Theirs, EC2 more than before", "as printed", 293.02, "$293.02", "ec2"),
        Bar(
            "Ours, cluster, always on",
            "modelled",
            found.cluster_always_on_usd,
            money(found.cluster_always_on_usd),
            "ec2",
        ),
        Bar(
            "Ours, cluster, scheduled",
            "modelled",
            found.cluster_scheduled_usd,
            money(found.cluster_scheduled_usd),
            "ec2",
        ),
    ]
    most = max(bar.value for bar in bars)
    return element(
        "section",
        element("h2", "c  Table 2: a month before and after"),
        data_table(
            "Its percentages, recomputed from its dollars",
            ["", "printed", "computed", ""],
            [
                [percent.what, f"{percent.printed:+.1f} %", f"{percent.computed:+.2f} %", percent.words]
                for percent in found.percents
            ],
            words=(0, 3),
        ),
        element(
            "p",
            f"WebSocket's part of its old bill is {money(found.websocket_usd)}. {found.sittings:.1f} sittings of "
            f"10,000 students and 3 "
            f"hours explain it, each message in and on to one proctor ({found.messages / 1e9:.2f} billion messages, "
            f"assumed). Of the "
            f"$1,846.51 saved, {money(found.others_usd)} are in neither column; Lambda, DynamoDB and logs of such "
            f"messages cost "
            f"{money(found.handlers_usd)} on our serverless side (modelled).",
        ),
        element(
            "figure",
            element("h3", "The same workload, USD a month"),
            both_widths(lambda width: bar_plot("Modelled cost of a month beside the printed one", bars, most, width)),
        ),
    )


def _big(found: paper.BigExam) -> Markup:
    slow = found.their_cpu
    return element(
        "section",
        element("h2", "d  Figures 8 and 9: the exam of 10,000, modelled"),
        element(
            "p",
            f"{found.updates_a_second:,.0f} frames a second. A t3a.small carries {found.students_an_instance:,.0f} "
            f"students at half of "
            f"its CPU; theirs carried {found.their_students_an_instance:,.0f}. With the CPU that its Table 1 says a "
            f"message took, the "
            f"same scaler needs {slow.steady_instances} instances and starts {slow.most_instances} in the surge; "
            f"twelve would be "
            f"{found.their_busy_percent:.0f} % busy. Our coefficients were measured with up to 2,000 students, and "
            f"a t3a vCPU is taken "
            "to be 2.5 times slower (assumed).",
        ),
        data_table(
            "Instances for 10,000 students",
            ["", "instances", ""],
            [
                ["Theirs, as printed", f"{found.their_instances}", ""],
                ["Ours, most in the surge", f"{found.our_instances}", basis_mark("modelled")],
                ["Ours, with one to spare", f"{found.with_redundancy}", basis_mark("modelled")],
                ["Ours, with its CPU a message", f"{slow.steady_instances}", basis_mark("modelled")],
            ],
            words=(0, 2),
        ),
    )


def _method(day: Day) -> Markup:
    return element(
        "section",
        element("h2", "Method"),
        element("p", f"{day.calibration.source}. Prices of {day.prices.region} as of {day.prices.as_of}."),
        element(
            "dl",
            *[join(element("dt", basis_mark(word)), element("dd", words)) for word, words in BASIS_WORDS.items()],
            class_="words",
        ),
    )
