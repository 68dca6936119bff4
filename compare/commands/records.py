"""`proctorwire records` and `proctorwire purge`: what an operator does with schools' records, and with exams that are over.

A school's first key is made here, straight in the records; from then on the school makes, rotates and revokes keys over the API.
A purge goes through the API, so one command serves both deployments.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click

if TYPE_CHECKING:
    from adapters.web.records import Records

_TIMEOUT_SECONDS = 60.0
_DAY_SECONDS = 86_400.0
_LINES_AT_ONCE = 500

_AT = click.option(
    "--at",
    "place",
    envvar="PROCTORWIRE_RECORDS",
    required=True,
    metavar="PLACE",
    help="Where they are, or PROCTORWIRE_RECORDS: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or dynamodb:TABLE.",
)
_SCHOOL = click.option("--school", required=True, help="The school.")


@click.group()
def records() -> None:
    """Records of schools: keys, exams, rosters, assignments; where they are kept is what `web` is told by --records.

    \b
    Example:
      proctorwire records key --school demo --at sqlite:///records.sqlite
    """


@records.command()
@_SCHOOL
@_AT
@click.option("--label", default="", help="What it is for.")
@click.option(
    "--days", type=click.FloatRange(0, 3_650, min_open=True), help="How long it counts.  [default: until revoked]"
)
def key(school: str, place: str, label: str, days: float | None) -> None:
    """Make a key for a school, and print it: the only time that it is shown.

    \b
    Example:
      proctorwire records key --school demo --at sqlite:///records.sqlite --label LMS
    """
    from adapters.web.administration import new_key

    now = time.time()
    made, given = new_key(school, label, now, "operator", None if days is None else now + days * _DAY_SECONDS)
    with _opened(place) as kept:
        kept.add_key(made)
    click.echo(given)


@records.command()
@_SCHOOL
@_AT
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def keys(school: str, place: str, as_json: bool) -> None:
    """List the keys of a school, without the keys themselves.

    \b
    Example:
      proctorwire records keys --school demo --at sqlite:///records.sqlite
    """
    now = time.time()
    with _opened(place) as kept:
        found = kept.keys(school)
    if as_json:
        lines = [{"key_id": one.key_id, "label": one.label, "state": one.state(now)} for one in found]
        click.echo(json.dumps(lines))
        return
    for one in found:
        made = time.strftime("%Y-%m-%d", time.gmtime(one.created_at))
        click.echo(f"{one.key_id}  {one.state(now):7}  made {made} by {one.created_by}  {one.label}".rstrip())


@records.command()
@_SCHOOL
@_AT
@click.option("--id", "key_id", required=True, help="The key's id, as `records keys` lists it.")
def revoke(school: str, place: str, key_id: str) -> None:
    """Let a key count no more. Processes that serve the API notice within half a minute.

    \b
    Example:
      proctorwire records revoke --school demo --id 0123456789ab --at sqlite:///records.sqlite
    """
    from msgspec.structs import replace

    with _opened(place) as kept:
        found = next((one for one in kept.keys(school) if one.key_id == key_id), None)
        if found is None:
            raise click.ClickException(f"--id: {school} has no key {key_id}; `proctorwire records keys` lists them")
        if found.revoked_at is None:
            kept.put_key(replace(found, revoked_at=time.time()))
    click.echo(f"{key_id} counts no more")


@records.command()
@_SCHOOL
@click.option("--from", "source", required=True, metavar="PLACE", help="Where they are.")
@click.option("--to", "target", required=True, metavar="PLACE", help="Where they should be, too.")
def copy(school: str, source: str, target: str) -> None:
    """Copy a school's records to another place, such as from a table to Aurora. Repeated, it takes over what is new.

    \b
    Example:
      proctorwire records copy --school demo --from sqlite:///records.sqlite --to postgresql://proctorwire@db/proctorwire
    """
    with _opened(source) as old, _opened(target) as new:
        counts = copied(school, old, new)
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


def copied(school: str, old: Records, new: Records) -> dict[str, int]:
    """Copy a school's records; how many of each kind."""
    counts = {"keys": 0, "exams": 0, "students": 0, "proctors": 0}
    known = old.school(school)
    if known is not None:
        new.put_school(known)
    for one in old.keys(school):
        if not new.add_key(one):
            new.put_key(one)
        counts["keys"] += 1
    for exam in old.exams(school):
        new.put_exam(exam)
        counts["exams"] += 1
        lines = list(old.lines(exam.key))
        for start in range(0, len(lines), _LINES_AT_ONCE):
            new.put_lines(exam.key, lines[start : start + _LINES_AT_ONCE])
        counts["students"] += len(lines)
        for assignment in old.assignments(exam.key):
            new.assign(exam.key, assignment)
            counts["proctors"] += 1
    return counts


@click.command()
@click.option(
    "--url", required=True, envvar="PROCTORWIRE_API_URL", metavar="URL", help="The HTTP API, or PROCTORWIRE_API_URL."
)
@_SCHOOL
@click.option("--exam", "quiz_id", help="This exam.")
@click.option("--older-than-days", type=click.FloatRange(0, 3_650), help="Every exam that closed longer ago.")
@click.option(
    "--key", envvar="PROCTORWIRE_SCHOOL_KEY", required=True, help="The school's key; better PROCTORWIRE_SCHOOL_KEY."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(url: str, school: str, quiz_id: str | None, older_than_days: float | None, key: str, yes: bool) -> None:
    """Delete all that is kept about the students of closed exams, on either deployment: live records, journal, roster.

    Without --exam and --older-than-days: as the school's retention_days says, which suits a scheduled job.

    \b
    Example:
      export PROCTORWIRE_SCHOOL_KEY=...
      proctorwire purge --url https://api.example --school demo --exam math-1
      proctorwire purge --url https://api.example --school demo --older-than-days 180 --yes
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise click.ClickException(f"--url is {url!r}; it must begin with https:// or http://")
    if quiz_id is not None and older_than_days is not None:
        raise click.ClickException("--exam and --older-than-days: give one of them")
    which = f"exam {quiz_id}" if quiz_id else "old exams"
    if (
        not yes
        and click.prompt(f"This deletes all about the students of {which}. Type the school's id to go on") != school
    ):
        raise click.ClickException("that is not the school's id; nothing was deleted")
    if quiz_id is not None:
        path, body = f"/api/exams/{quote(quiz_id, safe='')}/purge", {"confirm": quiz_id}
    else:
        path, body = "/api/purge", {"confirm": school}
        if older_than_days is not None:
            body["older_than_days"] = older_than_days  # type: ignore[assignment]
    deleted, exams, done = 0, [quiz_id] if quiz_id else [], False
    while not done:
        answer = _posted(url.rstrip("/") + path, key, body)
        deleted, done = deleted + answer["deleted"], answer["done"]
        exams += answer.get("purged", [])
    click.echo(f"{deleted} items of {len(exams)} exams deleted{': ' + ', '.join(map(str, exams)) if exams else ''}")


def _posted(url: str, key: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")  # noqa: S310  http(s), as checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            try:
                detail = json.load(error)["detail"]
            except (ValueError, KeyError):
                detail = error.reason
        raise click.ClickException(f"the API refuses ({error.code}): {detail}") from error
    except OSError as error:
        raise click.ClickException(f"--url: {url} can't be reached: {error}") from error


@contextlib.contextmanager
def _opened(place: str) -> Iterator[Records]:
    """Records by the name of their place. What can't be done is told in one line."""
    from adapters.ec2_cluster.records import IN_MEMORY, open_records
    from adapters.web.records import RecordsUnavailable

    if place == IN_MEMORY:
        raise click.ClickException("--at: a database in memory ends with this command; give a file, sqlite:///FILE")
    try:
        kept = open_records(place, os.environ.get("PROCTORWIRE_RECORDS_SECRET", ""))
        with contextlib.closing(kept):
            yield kept
    except ValueError as error:
        raise click.ClickException(f"--at: {error}") from error
    except RecordsUnavailable as error:
        raise click.ClickException(str(error)) from error
