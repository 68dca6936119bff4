"""`deploy migrate`: thin over `migrate` and `migration_rehearsal`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from core.migration import Limits, Move, WrongStep

_stage = click.option("--stage", required=True, metavar="NAME", help="Which of your installations.")
_region = click.option("--region", required=True, envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], help="AWS region.")
_profile = click.option("--profile", metavar="NAME", help="Profile of ~/.aws/config.")
_zone = click.option(
    "--zone", default="", metavar="ID", help="Route 53 zone with the weighted records; without it DNS stays."
)
_domain = click.option("--domain", default="", help="The name whose records are weighted.")


def _account(command: Any) -> Any:
    for option in (_domain, _zone, _profile, _region, _stage):
        command = option(command)
    return command


@click.group()
def migrate() -> None:
    """Move a live exam from API Gateway to EC2, and back. docs/migration.md takes you through it.

    \b
    Example:
      deploy migrate rehearse --students 40
    """


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    from deploy.account import AccountError
    from deploy.migration_rehearsal import MigrationRehearsalError
    from deploy.settings import WrongInputError
    from deploy.stacks import StackError

    try:
        yield
    except (WrongStep, AccountError, WrongInputError, StackError, MigrationRehearsalError) as error:
        raise click.ClickException(str(error)) from error


def _stage_of(
    stage: str, region: str, profile: str | None, zone: str, domain: str, *, both: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The plane of a stage, and the stacks of its two sides by mode."""
    from deploy.account import Account
    from deploy.migrate import AccountPlane
    from deploy.names import Mode
    from deploy.operate import Operator
    from deploy.settings import Target

    account = Account(region, profile)
    account.number()
    stacks: dict[str, Any] = {
        str(part): stack for part, stack in Operator(account, Target("lambda", stage, region)).stacks().items()
    }
    if "shared" not in stacks:
        raise WrongStep(f"there is no stage {stage} in {region}: deploy up --mode lambda --stage {stage}")
    modes: tuple[Mode, ...] = ("lambda", "ec2")
    for mode in modes:
        if both and mode not in stacks:
            raise WrongStep(f"stage {stage} has no {mode} side in {region}: deploy up --mode {mode} --stage {stage}")
    return AccountPlane(account, stacks["shared"].outputs["StateTable"], zone, domain), stacks


def _alive(move: Move | None, health: Any) -> bool:
    """Whether the bridge has reported as lately as it does: each second, and each minute without a move."""
    return health is not None and time.time() - health.at < (90 if move is None else 10)


@migrate.command()
@_account
@click.option("--exam", "exams", multiple=True, metavar="QUIZ_ID", help="Only this exam; may be repeated.")
@click.option("--students", default=300, show_default=True, type=click.IntRange(1), help="In an exam, for the cost.")
@click.option("--exams-per-month", default=8.0, show_default=True, type=click.FloatRange(0), help="For the cost.")
@click.option("--exam-hours", default=2.0, show_default=True, type=click.FloatRange(0.25), help="For the cost.")
def plan(exams: tuple[str, ...], students: int, exams_per_month: float, exam_hours: float, **given: Any) -> None:
    """Look at what a move needs and say what it would do, and what either side costs. Changes nothing.

    \b
    Example:
      deploy migrate plan --stage prod --region ap-southeast-1 --students 300 --exams-per-month 20
    """
    from deploy.migrate import STEPS, addresses

    with _clear_errors():
        plane, stacks = _stage_of(both=True, **given)
        move, health = plane.load(), plane.health()
        urls = addresses(stacks["lambda"].outputs, stacks["ec2"].outputs)
    click.echo(f"from {urls['lambda']}\nto   {urls['ec2']}")
    click.echo(f"exams: {', '.join(exams) or 'all that are open'}")
    missing = "does not report yet; an instance starts it a minute after the first start (systemctl status proctorwire-bridge)"
    click.echo(f"bridge: {'reports' if _alive(move, health) else missing}")
    click.echo(f"now: {f'{move.state}, {move.percent:g} %' if move else 'no move'}")
    click.echo(f"steps: start, then shift --percent {', '.join(f'{s:g}' for s in STEPS)}, then finish")
    _show_costs(students, exams_per_month, exam_hours, given["region"])


@migrate.command()
@_account
@click.option("--exam", "exams", multiple=True, metavar="QUIZ_ID", help="Only this exam; may be repeated.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Only this group; may be repeated.")
@click.option(
    "--slot-seconds", default=30.0, show_default=True, type=click.FloatRange(1, 3600), help="Length of a step."
)
def start(exams: tuple[str, ...], groups: tuple[str, ...], slot_seconds: float, **given: Any) -> None:
    """Begin a move at 0 %: both sides see each other's students, nobody moves yet.

    \b
    Example:
      deploy migrate start --stage prod --region ap-southeast-1 --exam math-1
    """
    from deploy import migrate as steps

    with _clear_errors():
        plane, stacks = _stage_of(both=True, **given)
        serverless, cluster = stacks["lambda"], stacks["ec2"]
        urls = steps.addresses(serverless.outputs, cluster.outputs)
        plane.save_side(steps.side_of(serverless.outputs, serverless.parameters))
        move = Move(
            urls["lambda"],
            urls["ec2"],
            exams=exams,
            groups=groups,
            slot_seconds=slot_seconds,
            changed_at=time.time(),
        )
        steps.start(plane, move)
    click.echo("started at 0 %; `deploy migrate status` shows when the bridge sees both sides")


@migrate.command()
@_account
@click.option("--percent", required=True, type=click.FloatRange(0, 100), help="Share of the students on the cluster.")
@click.option("--exam", "exams", multiple=True, metavar="QUIZ_ID", help="This exam too, from now on; may be repeated.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="This group too, from now on; may be repeated.")
@click.option("--max-lag", default=3.0, show_default=True, help="Seconds that views may be late before it rolls back.")
@click.option("--max-errors", default=5, show_default=True, help="Errors of a step before it rolls back.")
def shift(
    percent: float, exams: tuple[str, ...], groups: tuple[str, ...], max_lag: float, max_errors: int, **given: Any
) -> None:
    """Move this share of the students, in paced slots; rolls back by itself beyond a limit (exit code 1).

    New connections are told to go there by the two weighted records, if --zone and --domain are given, and by the token endpoint.
    A move that was started for some exams or groups can be widened by others, and not be narrowed.

    \b
    Example:
      deploy migrate shift --percent 25 --stage prod --region ap-southeast-1
    """
    from deploy import migrate as steps

    with _clear_errors():
        plane, _ = _stage_of(**given)
        before = plane.load()
        if before is not None and percent < before.percent:
            raise WrongStep(
                f"--percent: {before.percent:g} % are moved already; to bring some back: deploy migrate rollback"
            )
        move = steps.step(plane, "shifting", percent, time.time(), exams=exams, groups=groups)
        limits = Limits(lag_seconds=max_lag, errors=max_errors)
        reason = steps.follow(plane, move, before.percent, click.echo, limits=limits)
    if reason:
        raise click.ClickException(f"rolled back to {before.percent:g} %: {reason}")
    click.echo(f"{percent:g} % are on the cluster")


@migrate.command()
@_account
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool, **given: Any) -> None:
    """Show the move and what its bridge reports.

    \b
    Example:
      deploy migrate status --stage prod --region ap-southeast-1
    """
    with _clear_errors():
        plane, _ = _stage_of(**given)
        move, health = plane.load(), plane.health()
    if as_json:
        click.echo(json.dumps({"move": msgspec.to_builtins(move), "health": msgspec.to_builtins(health)}, indent=2))
        return
    if move is None:
        click.echo("no move")
        return
    click.echo(f"{move.state}, {move.percent:g} %" + (f": {move.reason}" if move.reason else ""))
    if health is not None:
        click.echo(f"{health.on_lambda} serverless, {health.on_ec2} on the cluster, {health.waiting} on their way")
        click.echo(
            f"bridge: {time.time() - health.at:.0f} s ago, {health.errors} errors, lag {health.lag_seconds:.2f} s"
        )


@migrate.command()
@_account
@click.option("--percent", default=0.0, show_default=True, type=click.FloatRange(0, 100), help="Back to this share.")
def rollback(percent: float, **given: Any) -> None:
    """Move students back to the serverless side, as smoothly as they came.

    \b
    Example:
      deploy migrate rollback --stage prod --region ap-southeast-1
    """
    from deploy import migrate as steps

    with _clear_errors():
        plane, _ = _stage_of(**given)
        move = steps.step(plane, "rolled_back", percent, time.time(), "asked for")
        steps.follow(plane, move, percent, click.echo, limits=Limits(errors=10**9, offline_share=1.0))
    click.echo(f"{percent:g} % are on the cluster")


@migrate.command()
@_account
def finish(**given: Any) -> None:
    """End a move whose students are all on the cluster.

    \b
    Example:
      deploy migrate finish --stage prod --region ap-southeast-1
    """
    from deploy import migrate as steps

    with _clear_errors():
        plane, _ = _stage_of(**given)
        health = plane.health()
        if health is not None and health.on_lambda:
            raise WrongStep(f"{health.on_lambda} participants are still serverless; wait, or look at `status`")
        steps.step(plane, "finished", 100.0, time.time())
    click.echo("finished; the serverless side may go when its exams are closed")


_FAULTS = ("bridge", "worker", "redis", "environment", "two-tabs", "transit-command", "guard", "dead-cluster")


@migrate.command()
@click.option("--students", default=300, show_default=True, type=click.IntRange(4, 2000), help="How many pages.")
@click.option("--fault", type=click.Choice([*_FAULTS, "all"]), help="Harm in the middle of a step.")
@click.option(
    "--interval", default=5.0, show_default=True, type=click.FloatRange(0.5, 60), help="Seconds between reports."
)
@click.option(
    "--slot-seconds", default=5.0, show_default=True, type=click.FloatRange(0.5, 60), help="Length of a step."
)
@click.option(
    "--redis",
    "redis_url",
    default="",
    metavar="URL",
    help="An empty Redis or Redis Cluster for the cluster's side.  [default: one of its own]",
)
def rehearse(students: int, fault: str | None, interval: float, slot_seconds: float, redis_url: str) -> None:
    """Play a move on this machine: 50 %, back to 0 %, 100 %. Needs no account; exit code 1 if anybody would notice.

    The serverless side is emulated (its handlers are the real ones); cluster, Redis, bridge and sockets are real. One page in ten
    is the paper's own client: Figure 4's fields, no answer expected, moved by closing its socket once DNS points elsewhere.

    \b
    Example:
      deploy migrate rehearse --students 20 --interval 2 --slot-seconds 2
      deploy migrate rehearse --students 40 --fault all
      deploy migrate rehearse --students 40 --redis redis://127.0.0.1:7000
    """
    from deploy.migration_rehearsal import FAULTS, Outcome, refuse_used
    from deploy.migration_rehearsal import rehearse as play

    if redis_url and fault in ("redis", "all"):
        raise click.UsageError("--fault: a Redis that was given with --redis is not killed; choose another fault")
    if redis_url:
        with _clear_errors():
            refuse_used(redis_url)
    chosen: list[Any] = list(FAULTS) if fault == "all" else [fault]
    failed = False
    for each in chosen:
        if each:
            click.echo(f"--- {each}")
        with _clear_errors():
            outcome: Outcome = asyncio.run(
                play(students, click.echo, each, interval=interval, slot=slot_seconds, redis_url=redis_url)
            )
        click.echo(
            f"lost {outcome.lost}, duplicates {outcome.duplicates}, false offline {outcome.false_offline} of "
            f"{outcome.reports} reports of {outcome.students} students"
        )
        click.echo(
            f"gap in a proctor's view: p50 {outcome.gap_p50:.3f} s, p99 {outcome.gap_p99:.2f} s, "
            f"max {outcome.gap_max:.2f} s (before the move p99 {outcome.before_p99:.2f} s)"
        )
        for problem in outcome.problems():
            failed = True
            click.echo(f"problem: {problem}", err=True)
    _show_costs(students)
    if failed:
        sys.exit(1)


def _show_costs(
    students: int, exams_per_month: float = 8.0, hours: float = 2.0, region: str = "ap-southeast-1"
) -> None:
    """What exams of this size cost a month before and after, by `compare`'s model."""
    from compare.advice.choice import Case, price
    from compare.bill.assumptions import Assumptions
    from compare.bill.prices import PriceError, load_prices
    from compare.model import calibration
    from compare.model.units import Exam

    try:
        prices = load_prices(region)
    except PriceError as error:
        click.echo(f"cost: {error}")
        return
    exam = Exam(students=students, hours=hours).checked()
    priced = price(Case(exam, exams_per_month, prices, calibration.shipped(), Assumptions()))
    before, after = priced.serverless.month.usd, priced.cluster.month.usd
    click.echo(
        f"cost of {exams_per_month:g} exams of {hours:g} h with {students} students a month, modelled, {prices.region}: "
        f"before ${before:,.2f}, after ${after:,.2f} (both, while both are up: at most ${before + after:,.2f})"
    )
