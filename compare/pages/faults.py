"""The faults as a section of the report, a page of their own, and files beside the results of a run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from compare.faults.trials import SCHEMA, TRIALS, FaultTable, Outcome
from compare.pages.markup import Markup, element
from compare.pages.parts import basis_mark, data_table, document
from compare.run.result import MODE_NAMES

TABLE_FILE = "faults.json"
PAGE = "faults.html"


def faults_section(found: FaultTable) -> Markup:
    """The table with a sentence above it."""
    what = {trial.name: trial.what for trial in TRIALS}
    rows: list[list[str]] = [
        [
            what.get(outcome.fault, outcome.fault),
            MODE_NAMES[outcome.mode],
            f"{outcome.lost:,}",
            f"{outcome.duplicates:,}",
            f"{outcome.false_offline:,}",
            "never" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f}",
            f"{outcome.slowest_s:.1f}",
            basis_mark(outcome.basis),
            outcome.how,
        ]
        for outcome in found.outcomes
    ]
    return element(
        "section",
        element("h2", "When something breaks"),
        element("p", _sentence(found), class_="lead"),
        data_table(
            f"The same faults through both, {found.students} students who report about once a second; times in seconds",
            [
                "fault",
                "deployment",
                "lost",
                "twice",
                "wrongly offline",
                "recovery",
                "slowest report",
                "basis",
                "what it was there",
            ],
            rows,
            words=(0, 1, 7, 8),
        ),
        element(
            "p",
            "Recovery is the time from the end of the fault until every earlier report was on every dashboard and everybody was "
            "connected again. Serverless times are those of the emulated gateway on this machine, not AWS's.",
        ),
    )


def _sentence(found: FaultTable) -> str:
    bad = [outcome for outcome in found.outcomes if outcome.lost or outcome.false_offline]
    if bad:
        return "; ".join(_bad(outcome) for outcome in bad) + "."
    times = [outcome.recovery_s or 0.0 for outcome in found.outcomes]
    return (
        f"Nothing was lost in {len(times)} trials and nobody was wrongly shown as offline; the slowest recovery took "
        f"{max(times, default=0.0):.0f} s."
    )


def _bad(outcome: Outcome) -> str:
    return (
        f"{outcome.fault} with {MODE_NAMES[outcome.mode]}: {outcome.lost} lost, {outcome.false_offline} wrongly offline"
    )


def faults_page(found: FaultTable) -> str:
    """A page of its own."""
    return document(
        "Proctorwire: faults",
        "faults",
        found.environment.date[:10],
        [faults_section(found)],
        f"Made by compare faults. The figures are also in {TABLE_FILE}.",
    )


def keep(found: FaultTable, folder: Path) -> None:
    """Write table and page; a report of a run that is there gets the section. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    (folder / PAGE).write_text(faults_page(found))
    result = folder / "result.json"
    if result.exists():
        from compare.pages.report import html_report
        from compare.run.result import decode_result

        (folder / "report.html").write_text(html_report(decode_result(result.read_bytes()), faults_section(found)))


def kept(folder: Path) -> Markup | None:
    """The section of the faults that were written to this folder, if there are any."""
    try:
        found = msgspec.json.decode((folder / TABLE_FILE).read_bytes(), type=FaultTable)
    except (OSError, msgspec.DecodeError):
        return None
    return faults_section(found) if found.schema == SCHEMA else None
