"""`proctorwire admin`: what an operator asks of a running cluster. Each command calls `adapters.ec2_cluster.admin`.

Revocations are also made in a deployment on Lambda, with `--table`, by `adapters.lambda_apigw.admin`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

if TYPE_CHECKING:
    from adapters.ec2_cluster.admin import Admin
    from adapters.lambda_apigw.admin import Admin as LambdaAdmin
    from core.revocation import Revocation


_NO_REDIS = "no Redis: give --redis before the command, or PROCTORWIRE_REDIS_URL (revocations on Lambda: --table)"


@click.group()
@click.option(
    "--redis", "redis_url", metavar="URL", help="Its Redis, or any node of its Redis Cluster, or PROCTORWIRE_REDIS_URL."
)
@click.pass_context
def admin(context: click.Context, redis_url: str | None) -> None:
    """Ask and tell a running cluster: workers, exams, kick, drain, revoke.

    \b
    Example:
      export PROCTORWIRE_REDIS_URL=redis://127.0.0.1:6379
      proctorwire admin exams
    """
    context.obj = redis_url or os.environ.get("PROCTORWIRE_REDIS_URL", "")


@admin.command()
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@click.pass_obj
def workers(redis_url: str, as_json: bool) -> None:
    """List the workers that live, with their connections.

    \b
    Example:
      proctorwire admin workers
    """
    with _cluster(redis_url) as cluster:
        found = cluster.workers()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found:
        click.echo("no worker lives in this Redis", err=True)
    for one in found:
        state = one.state
        draining = " draining" if state.draining else ""
        click.echo(
            f"{state.instance}:{state.port}  {one.worker}  {state.students} students, {state.proctors} proctors{draining}"
        )


@admin.command()
@click.option("--school", help="Only those of this school.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@click.pass_obj
def exams(redis_url: str, school: str | None, as_json: bool) -> None:
    """List the open exams, and how many students have each label.

    \b
    Example:
      proctorwire admin exams --school demo
    """
    with _cluster(redis_url) as cluster:
        found = [exam for exam in cluster.exams() if school in (None, exam.school)]
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found:
        click.echo("no exam is open", err=True)
    for exam in found:
        counts = ", ".join(f"{count} {label}" for label, count in exam.labels.items())
        click.echo(f"{exam.school}  {exam.quiz_id}  {exam.state}  {exam.students} students: {counts or 'none'}")


@admin.command()
@click.option("--school", required=True, help="The school.")
@click.option("--quiz", "quiz_id", required=True, help="The exam.")
@click.option("--student", "student_id", required=True, help="The student.")
@click.pass_obj
def kick(redis_url: str, school: str, quiz_id: str, student_id: str) -> None:
    """Close a student's sockets. The page comes back by itself: revoke keeps it out.

    \b
    Example:
      proctorwire admin kick --school demo --quiz math-1 --student s1
    """
    from core.participant import ParticipantKey

    with _cluster(redis_url) as cluster:
        closed = cluster.kick(ParticipantKey(school, quiz_id, student_id))
    click.echo(f"{closed} connections closed")


@admin.command()
@click.argument("instance")
@click.pass_obj
def drain(redis_url: str, instance: str) -> None:
    """Have an instance send everybody elsewhere and end, as SIGTERM does. INSTANCE is NAME or NAME:PORT.

    \b
    Example:
      proctorwire admin drain ip-10-0-1-17:8080
    """
    with _cluster(redis_url) as cluster:
        for name in cluster.drain(instance):
            click.echo(f"{name} drains")


def _on_lambda(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say: not a cluster, but the state table of a deployment on Lambda."""
    for option in (
        click.option("--profile", default="", help="With --table: a profile of your AWS configuration."),
        click.option("--region", default="", help="With --table: the AWS region; also from AWS_REGION or the profile."),
        click.option(
            "--table",
            default="",
            metavar="NAME",
            help="On Lambda: the state table, proctorwire-STAGE-state. Without it, the cluster.",
        ),
    ):
        command = option(command)
    return command


@admin.command()
@click.option("--school", required=True, help="The school.")
@click.option("--quiz", "quiz_id", default="", help="The exam; without it, all of the school's.")
@click.option("--student", "student_id", default="", help="Only this student; without it, all students.")
@click.option("--proctor", "proctor_id", default="", help="This proctor, instead of students.")
@click.option("--hours", default=24.0, show_default=True, type=click.FloatRange(0.01, 24 * 366), help="For how long.")
@click.option("--undo", is_flag=True, help="Take it back.")
@_on_lambda
@click.pass_obj
def revoke(
    redis_url: str,
    school: str,
    quiz_id: str,
    student_id: str,
    proctor_id: str,
    hours: float,
    undo: bool,
    table: str,
    region: str,
    profile: str,
) -> None:
    """Let tokens count no more: of a student, of everybody in an exam, or of a proctor. Their sockets are closed with 4001.

    On a cluster that is at once, on Lambda at the next sweep, within ten seconds.
    Give at least as many hours as the tokens have left.

    \b
    Example:
      proctorwire admin revoke --school demo --quiz math-1 --student s1
      proctorwire admin revoke --school demo --quiz math-1 --student s1 --undo
      proctorwire admin revoke --table proctorwire-prod-state --region ap-southeast-1 --school demo --student s1
    """
    if not school.strip():
        raise click.UsageError("--school: empty; give the school's name")
    if student_id and proctor_id:
        raise click.UsageError("give --student or --proctor, not both")
    revocation = _revocation(school, quiz_id, "proctor" if proctor_id else "student", student_id or proctor_id)
    with _table(table, region, profile) if table else _cluster(redis_url) as deployment:
        if not undo:
            deployment.revoke(revocation, hours)
            click.echo(f"revoked for {hours:g} hours")
        elif deployment.allow(revocation):
            click.echo("allowed again")
        else:
            raise click.ClickException("there is no such revocation; `proctorwire admin revocations` lists them")


@admin.command()
@click.option("--school", default="", help="Only those of this school; needed with --table.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@_on_lambda
@click.pass_obj
def revocations(redis_url: str, school: str, as_json: bool, table: str, region: str, profile: str) -> None:
    """List what is revoked, and until when.

    \b
    Example:
      proctorwire admin revocations
      proctorwire admin revocations --table proctorwire-prod-state --region ap-southeast-1 --school demo
    """
    if table and not school:
        raise click.UsageError("give --school: in a table, revocations are kept by school")
    with _table(table, region, profile) if table else _cluster(redis_url) as deployment:
        found = deployment.revocations(school)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found:
        click.echo("nothing is revoked", err=True)
    for one in found:
        what = one.revocation
        until = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(one.until))
        click.echo(
            f"{what.school}  {what.quiz_id or 'every exam'}  {what.role} {what.subject or '(all)'}  until {until}"
        )


def _revocation(school: str, quiz_id: str, role: Literal["student", "proctor"], subject: str) -> Revocation:
    from core.revocation import Revocation

    return Revocation(school, role, quiz_id, subject)


@contextlib.contextmanager
def _table(name: str, region: str, profile: str) -> Iterator[LambdaAdmin]:
    """The deployment on Lambda that keeps its state in this table; what goes wrong there is one line."""
    from adapters.lambda_apigw.admin import AdminError, connect

    try:
        with connect(name, region, profile) as found:
            yield found
    except AdminError as error:
        raise click.ClickException(str(error)) from error


@contextlib.contextmanager
def _cluster(redis_url: str) -> Iterator[Admin]:
    """The cluster behind a Redis; what goes wrong there is one line."""
    from adapters.ec2_cluster import redis_sync
    from adapters.ec2_cluster.admin import Admin, AdminError
    from adapters.ec2_cluster.config import without_password
    from adapters.ec2_cluster.web import connect

    if not redis_url:
        raise click.UsageError(_NO_REDIS)
    client: Any = None
    try:
        try:
            client = connect(redis_sync.marked(redis_url))
        except (*redis_sync.ERRORS, ValueError, OSError) as error:
            raise AdminError(
                f"redis_url {without_password(redis_url)} can't be used: {str(error).rstrip('.')}{redis_sync.advice(error)}"
            ) from error
        yield Admin(client)
    except AdminError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if client is not None:
            client.close()
