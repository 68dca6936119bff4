"""Scenario files: an exam, its day and its month under one name, so that commands and people speak of the same one.

A file is YAML with the sections of `Scenario`. What it does not say keeps the command's default; what it says wrongly is an error
that names the section, the field and what to write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from compare.advice.plan import Arrival, Scaling
from compare.model.units import AckPolicy, ClientKind
from compare.run.trace import TraceError, read_trace


class ScenarioError(Exception):
    """A scenario that can't be used; the message is one line for the user."""


class ExamPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who sits the exam, and what their pages do."""

    students: int | None = None
    hours: float | None = None
    exams: int | None = None
    proctors_per_exam: int | None = None
    interval: float | None = None
    changes: float | None = None  # of a student in an hour
    drops: float | None = None  # of a student's connection in an hour
    arrival_minutes: float | None = None
    client: ClientKind | None = None
    acks: AckPolicy | None = None


class MonthPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The month that is priced."""

    exams_per_month: float | None = None
    region: str | None = None
    servers: Literal["always-on", "scheduled", "scale-to-zero"] | None = None
    instance_type: str | None = None
    min_instances: int | None = None
    free_tier: Literal["none", "legacy", "credit"] | None = None


class DayPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The day that is simulated."""

    students: str | None = None  # a range, where it differs from the exam's
    arrival: Arrival | None = None
    begins: float | None = None
    scaling: Scaling | None = None
    target_cpu: float | None = None
    storm: float | None = None
    instance_type: str | None = None
    min_instances: int | None = None


class RunPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The run on a machine: smaller, and in minutes."""

    students: int | None = None
    exams: int | None = None
    proctors_per_exam: int | None = None
    interval: float | None = None
    duration: float | None = None
    client: ClientKind | None = None
    instances: int | None = None
    workers: int | None = None
    seed: int | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    name: str
    about: str
    exam: ExamPart
    month: MonthPart = MonthPart()
    day: DayPart = DayPart()
    run: RunPart = RunPart()


def names() -> tuple[str, ...]:
    """The scenarios that come with the package."""
    found = resources.files("compare").joinpath("scenarios").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in found if file.name.endswith(".yaml")))


def load_scenario(name_or_file: str) -> Scenario:
    """One of the package's by its name, or a file. Raises ScenarioError."""
    if name_or_file in names():
        return parse(resources.files("compare").joinpath("scenarios", f"{name_or_file}.yaml").read_text(), name_or_file)
    path = Path(name_or_file)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        close = difflib.get_close_matches(name_or_file, names(), 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names())}; or give a YAML file"
        raise ScenarioError(f"no scenario {name_or_file!r}; {hint}")
    try:
        return parse(path.read_text(), path.name)
    except (OSError, UnicodeDecodeError) as exc:
        raise ScenarioError(f"can't read {path} ({getattr(exc, 'strerror', None) or 'not text'})") from exc


def parse(text: str, where: str) -> Scenario:
    """The scenario in a YAML text. Raises ScenarioError, naming the place."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ScenarioError(f"{where}{line}: no YAML: {getattr(exc, 'problem', None) or 'malformed'}") from exc
    if not isinstance(data, dict):
        raise ScenarioError(f"{where}: is no table of sections; begin with name:, about: and exam:")
    try:
        found = msgspec.convert(data, Scenario)
    except msgspec.ValidationError as exc:
        raise ScenarioError(f"{where}: {_named(exc)}") from exc
    for section, field, value in _numbers(found):
        if value < 0:
            raise ScenarioError(f"{where}: {section}.{field}: {value:g} is below zero")
    return found


def _named(exc: msgspec.ValidationError) -> str:
    """msgspec's message with the place first and what there is instead."""
    text = str(exc)
    match = re.search(r" - at `\$\.?(.*)`$", text)
    place = match.group(1) if match else ""
    words = text[: match.start()] if match else text
    unknown = re.search(r"unknown field `(.*)`", words)
    if unknown is None:
        return f"{place}: {words}" if place else words
    parts: dict[str, type[msgspec.Struct]] = {"exam": ExamPart, "month": MonthPart, "day": DayPart, "run": RunPart}
    fields = parts.get(place, Scenario).__struct_fields__
    close = difflib.get_close_matches(unknown.group(1), fields, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
    where = f"{place}.{unknown.group(1)}" if place else unknown.group(1)
    return f"{where}: no such field; {hint}"


def _numbers(found: Scenario) -> Iterator[tuple[str, str, float]]:
    for section in ("exam", "month", "day", "run"):
        part = getattr(found, section)
        for field in part.__struct_fields__:
            value = getattr(part, field)
            if isinstance(value, int | float):
                yield section, field, value


# As options of commands


def advise_options(found: Scenario) -> dict[str, Any]:
    """What `compare advise` takes from it."""
    exam = {"arrival" if name == "arrival_minutes" else name: value for name, value in _given(found.exam)}
    return exam | dict(_given(found.month))


def plan_options(found: Scenario) -> dict[str, Any]:
    """What `compare plan` takes from it."""
    taken = {name: value for name, value in _given(found.exam) if name not in ("exams", "client", "acks")}
    if found.exam.students is not None:
        taken["students"] = str(found.exam.students)
        if found.exam.exams:
            taken["per_exam"] = max(1, found.exam.students // found.exam.exams)
    if found.month.region is not None:
        taken["region"] = found.month.region
    return taken | dict(_given(found.day))


def run_options(found: Scenario) -> dict[str, Any]:
    """What `compare run` takes from it."""
    taken = dict(_given(found.run))
    if found.exam.hours is not None:
        taken["hours"] = found.exam.hours
    if found.month.exams_per_month is not None:
        taken["exams_per_month"] = found.month.exams_per_month
    if found.month.region is not None:
        taken["region"] = found.month.region
    return taken


def _given(part: msgspec.Struct) -> Iterable[tuple[str, Any]]:
    return ((name, getattr(part, name)) for name in part.__struct_fields__ if getattr(part, name) is not None)


# From a recording


class _Life(msgspec.Struct):
    """One student in a recording."""

    begun: float | None = None
    first: float | None = None
    online: float = 0.0
    drops: int = 0
    changes: int = 0


def scenario_from_trace(rows: Iterable[str], name: str) -> Scenario:
    """A scenario with the numbers of a recorded exam: lines of seconds, student, event, with a heading.

    join, leave, drop, change, away, back, submit: after a drop or a leave the student is gone until the next join. Raises
    ScenarioError, naming the row.
    """
    try:
        found = read_trace(rows)
    except TraceError as exc:
        raise ScenarioError(str(exc)) from exc
    lives: dict[str, _Life] = {}
    for row in found:
        _live(lives.setdefault(row.student, _Life()), row.at, row.event)
    last = found[-1].at
    for life in lives.values():
        if life.begun is not None:
            life.online += last - life.begun
    firsts = sorted(life.first for life in lives.values() if life.first is not None)
    student_hours = sum(life.online for life in lives.values()) / 3600
    arrival = firsts[min(len(firsts) - 1, int(0.98 * len(firsts)))] - firsts[0]
    return Scenario(
        name=name,
        about=f"from a recording of {len(lives)} students over {(last - firsts[0]) / 60:.0f} minutes",
        exam=ExamPart(
            students=len(lives),
            hours=round(max(0.05, (last - firsts[0]) / 3600), 3),
            changes=round(sum(life.changes for life in lives.values()) / student_hours, 2) if student_hours else 0.0,
            drops=round(sum(life.drops for life in lives.values()) / student_hours, 3) if student_hours else 0.0,
            arrival_minutes=round(max(0.1, arrival / 60), 2),
        ),
    )


def _live(life: _Life, at: float, event: str) -> None:
    if event == "join":
        if life.first is None:
            life.first = at
        if life.begun is None:
            life.begun = at
    elif event in ("leave", "drop"):
        if life.begun is not None:
            life.online += at - life.begun
            life.drops += event == "drop"
        life.begun = None
    else:
        life.changes += 1


def to_yaml(found: Scenario) -> str:
    """The file's text, without what it does not say."""
    data: dict[str, Any] = {"name": found.name, "about": found.about}
    for section in ("exam", "month", "day", "run"):
        given = dict(_given(getattr(found, section)))
        if given:
            data[section] = given
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
