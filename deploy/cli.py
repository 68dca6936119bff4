"""The `deploy` command. Thin: each command reads its options, calls the library, and says what happens."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.migrate_cli import migrate
from deploy.names import MODES, Mode
from deploy.package import ARCHITECTURES, Architecture, Artifact, PackageError, build_ec2, build_lambda
from deploy.settings import Target, Wanted, WrongInputError
from deploy.stacks import ChangeSet, Progress, StackError

Command: TypeAlias = Callable[..., Any]
_INTERRUPTED = 130
_MARKS = {"ok": "[green]ok     [/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
_COLOURS = {"Add": "green", "Modify": "yellow", "Remove": "red"}


class BadInput(click.ClickException):
    """An error that the user can mend: one line, exit code 2."""

    exit_code = 2


class Failed(click.ClickException):
    """Something did not work: one line, exit code 1."""

    exit_code = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="proctorwire")
def deploy() -> None:
    """Bring Proctorwire up on AWS, serverless or on EC2, look at it, and take it down."""


deploy.add_command(migrate)


# --- options that commands share ------------------------------------------------------------------------------------------


def _together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_mode_option = click.option("--mode", type=click.Choice(MODES), required=True, help="Which deployment.")
_account_options = _together(
    click.option("--stage", required=True, metavar="NAME", help="Which of your installations, such as prod or trial."),
    click.option(
        "--region", required=True, envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], help="AWS region; also from AWS_REGION."
    ),
    click.option(
        "--profile", metavar="NAME", help="Profile of ~/.aws/config.  [default: AWS_PROFILE, or the environment]"
    ),
)
_target_options = _together(_mode_option, _account_options)
_usage_options = _together(
    click.option(
        "--students", default=100, show_default=True, type=click.IntRange(1), help="Students at the same time."
    ),
    click.option("--hours", default=2.0, show_default=True, type=click.FloatRange(0.05, 24), help="Hours of an exam."),
    click.option(
        "--exams-per-month",
        default=8.0,
        show_default=True,
        type=click.FloatRange(0),
        help="Exams in a month; for the cost.",
    ),
)
_wanted_options = _together(
    click.option("--domain", help="Where sockets connect: wss://DOMAIN/ws.  [default: AWS's own name]"),
    click.option(
        "--certificate", metavar="ARN", help="ACM certificate of the domain, in the same region; EC2 needs one."
    ),
    click.option("--zone", metavar="ID", help="Route 53 hosted zone to put the domain's record into."),
    click.option("--alarm-email", metavar="ADDRESS", help="Who gets the alarms."),
    click.option(
        "--school", "schools", multiple=True, metavar="NAME", help="Schools to make a key for, at the first deployment."
    ),
    click.option(
        "--arch", "architecture", type=click.Choice(ARCHITECTURES), help="lambda: processor.  [default: arm64]"
    ),
    click.option("--instance-type", metavar="TYPE", help="ec2: instances.  [default: t3a.small]"),
    click.option("--min", "min_instances", type=click.IntRange(0, 100), help="ec2: instances, at least.  [default: 1]"),
    click.option("--max", "max_instances", type=click.IntRange(1, 100), help="ec2: instances, at most.  [default: 1]"),
    click.option(
        "--cache", metavar="NODE", help="ec2: ElastiCache node type; more than one instance needs it.  [default: none]"
    ),
    click.option(
        "--cache-shards",
        type=click.IntRange(1, 8),
        help="ec2: over how many primaries exams are spread, each with its replicas; more than 1 is ElastiCache's cluster mode.  "
        "[default: 1]",
    ),
    click.option(
        "--tls", type=click.Choice(["balancer", "instance"]), help="ec2: where TLS ends.  [default: balancer]"
    ),
    click.option(
        "--set",
        "others",
        multiple=True,
        metavar="PARAM=VALUE",
        help="Any other parameter of the templates; see docs/deploy.md.",
    ),
)
_artifact_option = click.option(
    "--artifact",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `deploy package` made.  [default: made now]",
)


def _wanted(mode: Mode, stage: str, region: str, given: dict[str, Any]) -> Wanted:
    others = []
    for text in given.pop("others"):
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set: {text!r} is not of the form PARAM=VALUE")
        others.append((name, value))
    return Wanted(target=Target(mode, stage, region), others=tuple(others), **given)


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Library errors as one line."""
    from deploy.account import AccountError
    from deploy.rehearse import RehearsalError

    try:
        yield
    except (WrongInputError, AccountError) as error:
        raise BadInput(str(error)) from error
    except (StackError, PackageError, RehearsalError) as error:
        raise Failed(str(error)) from error


def _operator(target: Target, profile: str | None) -> Any:
    from deploy.account import Account
    from deploy.operate import Operator

    target.checked()
    account = Account(target.region, profile)
    account.number()
    return Operator(account, target)


# --- package and rehearse -----------------------------------------------------------------------------------------------------


@deploy.command()
@click.option("--mode", type=click.Choice([*MODES, "both"]), default="both", show_default=True, help="Which artifacts.")
@click.option(
    "--arch", type=click.Choice([*ARCHITECTURES, "both"]), default="both", show_default=True, help="Which processors."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/deploy"),
    show_default=True,
    help="Folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def package(mode: str, arch: str, output: Path, as_json: bool) -> None:
    """Build the Lambda zip and the EC2 bundle, without Docker. The same sources give the same bytes.

    \b
    Example:
      deploy package --mode lambda --arch arm64
    """
    built = []
    with _clear_errors():
        for architecture in ARCHITECTURES if arch == "both" else (arch,):
            for name, build in (("lambda", build_lambda), ("ec2", build_ec2)):
                if mode in (name, "both"):
                    built.append(build(output, architecture))  # type: ignore[arg-type]  # click has checked it
    if as_json:
        click.echo(json.dumps([_facts(artifact) for artifact in built], indent=2))
        return
    for artifact in built:
        size = f"{artifact.bytes / 1e6:.1f} MB"
        note = "  bytecode inside" if artifact.precompiled else ""
        click.echo(f"{artifact.path}  {size}  sha256 {artifact.sha256}{note}")
    if any(artifact.path.suffix == ".zip" and not artifact.precompiled for artifact in built):
        click.echo("no python3.13 here to compile bytecode with: cold starts take about 0.2 s longer", err=True)


def _facts(artifact: Artifact) -> dict[str, Any]:
    return {
        "path": str(artifact.path),
        "architecture": artifact.architecture,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "unpacked_bytes": artifact.unpacked_bytes,
        "precompiled": artifact.precompiled,
    }


@deploy.command()
@click.option(
    "--mode", type=click.Choice([*MODES, "both"]), default="both", show_default=True, help="Which deployment."
)
def rehearse(mode: str) -> None:
    """Create, use, change and delete the stacks on an emulated AWS on this machine. Needs no account.

    A student and a proctor talk through the serverless stack, and each request of a function is checked against its role.
    For EC2 a fleet of instances stands behind a balancer, in network namespaces if you are root: health check, scale-out,
    drain and scale-in.

    \b
    Example:
      deploy rehearse --mode lambda
    """
    from deploy.rehearse import ADAPTATIONS
    from deploy.rehearse import rehearse as play

    modes: tuple[Mode, ...] = MODES if mode == "both" else (mode,)  # type: ignore[assignment]  # click has checked it
    with _clear_errors():
        play(click.echo, modes)
    click.echo("What differs from AWS:")
    for each in modes:
        for difference in ADAPTATIONS[each]:
            click.echo(f"  {each}: {difference}")


# --- check and plan -------------------------------------------------------------------------------------------------------------


@deploy.command()
@_target_options
@_wanted_options
@_usage_options
def check(
    mode: Mode,
    stage: str,
    region: str,
    profile: str | None,
    students: int,
    hours: float,
    exams_per_month: float,
    **given: Any,
) -> None:
    """Look for what is in the way: credentials, quotas, certificate, DNS, cache. Changes nothing; exit code 1 for a problem.

    \b
    Example:
      deploy check --mode ec2 --stage prod --region ap-southeast-1 --students 3000 --max 4
    """
    from deploy.account import Account
    from deploy.check import check as look
    from deploy.cost import Usage

    wanted = _wanted(mode, stage, region, given)
    problems = 0
    out = Console(highlight=False, soft_wrap=True)
    with _clear_errors():
        wanted.target.checked()
        for finding in look(Account(region, profile), wanted, Usage(students, hours, exams_per_month)):
            problems += finding.verdict == "problem"
            out.print(f"{_MARKS[finding.verdict]}  {escape(finding.what)}")
            if finding.fix:
                out.print(f"         [dim]{escape(finding.fix)}[/]")
    if problems:
        sys.exit(1)


@deploy.command()
@_target_options
@_wanted_options
@_usage_options
@_artifact_option
def plan(profile: str | None, artifact: Path | None, **given: Any) -> None:
    """Show what `up` would change, and what that costs in a month. Changes nothing.

    \b
    Example:
      deploy plan --mode lambda --stage prod --region ap-southeast-1 --students 500
    """
    with _clear_errors(), tempfile.TemporaryDirectory() as folder:
        operator, planned = _plan(profile, artifact, Path(folder), given)
        _show(planned)
        operator.discard(planned)


@deploy.command()
@_target_options
@_wanted_options
@_usage_options
@_artifact_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def up(profile: str | None, artifact: Path | None, yes: bool, **given: Any) -> None:
    """Deploy, or change what is deployed: shows the plan and its cost, asks, and tells what happens.

    What is not given stays as it was deployed. The schools' keys are printed once, when they are made.

    \b
    Example:
      deploy up --mode lambda --stage prod --region ap-southeast-1 --school north --alarm-email it@north.example
      deploy up --mode ec2 --stage prod --region ap-southeast-1 --certificate ARN --domain exams.north.example
    """
    with _clear_errors(), tempfile.TemporaryDirectory() as folder:
        operator, planned = _plan(profile, artifact, Path(folder), given)
        _show(planned)
        if planned.is_empty:
            click.echo("Everything is as it should be.")
            return
        if planned.replaced:
            click.echo(f"These would be made anew, and lose what they hold: {', '.join(planned.replaced)}")
        if not yes and not _confirmed("Deploy this?"):
            operator.discard(planned)
            raise Failed("nothing was changed")
        _follow(operator.apply(planned))
        for name, value in sorted(operator.outputs().items()):
            click.echo(f"{name}: {value}")
        for school, key in planned.keys.items():
            click.echo(f"key of school {school} (shown this once): {key}")


def _plan(profile: str | None, artifact: Path | None, folder: Path, given: dict[str, Any]) -> tuple[Any, Any]:
    from deploy.cost import Usage
    from deploy.operate import build

    mode, stage, region = given.pop("mode"), given.pop("stage"), given.pop("region")
    usage = Usage(given.pop("students"), given.pop("hours"), given.pop("exams_per_month"))
    wanted = _wanted(mode, stage, region, given)
    operator = _operator(wanted.target, profile)
    processor: Architecture = operator.processor(wanted)
    code = _artifact_from(artifact, processor) if artifact else build(mode, folder, processor)
    return operator, operator.plan(wanted, usage, code)


def _artifact_from(path: Path, processor: Architecture) -> Artifact:
    import hashlib

    data = path.read_bytes()
    if processor not in path.name:
        raise BadInput(f"--artifact: {path.name} is not for {processor}, which will run it")
    return Artifact(path, processor, hashlib.sha256(data).hexdigest(), len(data), len(data))


def _show(planned: Any) -> None:
    """Changes and costs."""
    out = Console(highlight=False)
    for change_set in (planned.shared, planned.mode):
        _show_changes(out, change_set)
    costs = planned.costs
    dated = f", prices of {costs.price_date}" if costs.price_date else ""
    table = Table(
        "", "quantity", "USD a month", "", title=f"Cost in {costs.region}{dated}", title_justify="left", box=None
    )
    table.columns[0].no_wrap = True
    table.columns[1].justify = table.columns[2].justify = "right"
    for line in costs.standing:
        usd = "no price" if line.usd is None else f"{line.usd:,.2f}"
        table.add_row(line.name, f"{line.quantity:,.10g}", usd, f"[dim]{escape(line.note)}[/]")
    if costs.exams_usd is not None:
        table.add_row(costs.exams, "", f"{costs.exams_usd:,.2f}", "[dim]modelled[/]")
    table.add_row("[bold]together[/]", "", f"[bold]{costs.month_usd:,.2f}[/]", "")
    out.print(table)
    for note in costs.notes:
        click.echo(f"note: {note}")


def _show_changes(out: Console, change_set: ChangeSet) -> None:
    if not change_set.changes:
        out.print(f"{change_set.stack}: no change")
        return
    table = Table("", "", "", "", box=None, show_header=False, padding=(0, 1))
    for change in change_set.changes:
        colour = _COLOURS.get(change.action, "white")
        anew = {"True": "[red]made anew[/]", "Conditional": "perhaps made anew"}.get(change.replacement, "")
        table.add_row(f"[{colour}]{change.action.lower()}[/]", change.resource, f"[dim]{change.kind}[/]", anew)
    out.print(
        f"[bold]{change_set.stack}[/]: {'create' if change_set.creates else 'update'}, {len(change_set.changes)} resources"
    )
    out.print(table)


def _follow(progress: Iterable[Progress]) -> None:
    """Tell what happens, as it does."""
    began = time.monotonic()
    out = Console(highlight=False, soft_wrap=True)
    for each in progress:
        colour = "red" if each.status.endswith("FAILED") else "green" if each.status.endswith("COMPLETE") else "dim"
        reason = f"  {escape(each.reason)}" if each.reason and each.status.endswith("FAILED") else ""
        waited = f"{time.monotonic() - began:6.0f} s"
        out.print(f"[dim]{waited}[/]  [{colour}]{each.status:<28}[/] {each.resource} [dim]{each.kind}[/]{reason}")


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise BadInput("there is nobody to ask here: give --yes")
    return click.confirm(question)


# --- looking ------------------------------------------------------------------------------------------------------------------


@deploy.command()
@_account_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(stage: str, region: str, profile: str | None, as_json: bool) -> None:
    """Show the stacks of a stage, where they answer, and which alarms ring. Exit code 1 if one does, or a stack failed.

    \b
    Example:
      deploy status --stage prod --region ap-southeast-1
    """
    with _clear_errors():
        operator = _operator(Target("lambda", stage, region), profile)
        stacks, alarms = operator.stacks(), operator.alarms()
    if as_json:
        found = {part: {"status": stack.status, "outputs": stack.outputs} for part, stack in stacks.items()}
        click.echo(json.dumps({"stacks": found, "alarms": alarms}, indent=2))
    else:
        if not stacks:
            click.echo(f"stage {stage} has no stack in {region}")
        for stack in stacks.values():
            click.echo(f"{stack.name}: {stack.status}  {stack.outputs.get('SocketUrl', '')}")
        for alarm in alarms:
            click.echo(f"alarm: {alarm}")
    if alarms or any("FAILED" in stack.status for stack in stacks.values()):
        sys.exit(1)


@deploy.command()
@_target_options
@click.option("--key", metavar="NAME", help="One of them, bare.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def outputs(mode: Mode, stage: str, region: str, profile: str | None, key: str | None, as_json: bool) -> None:
    """Print where a deployment answers, and what else it has told.

    \b
    Example:
      deploy outputs --mode lambda --stage prod --region ap-southeast-1 --key SocketUrl
    """
    with _clear_errors():
        found = _operator(Target(mode, stage, region), profile).outputs()
    if key is not None:
        if key not in found:
            raise BadInput(f"--key: there is no output {key}; there are {', '.join(sorted(found))}")
        click.echo(found[key])
    elif as_json:
        click.echo(json.dumps(found, indent=2, sort_keys=True))
    else:
        for name, value in sorted(found.items()):
            click.echo(f"{name}: {value}")


@deploy.command()
@_target_options
@click.option(
    "--minutes", default=10.0, show_default=True, type=click.FloatRange(0.1, 60 * 24 * 30), help="How far back."
)
@click.option("--filter", "pattern", default="", metavar="PATTERN", help="A CloudWatch filter pattern, such as ERROR.")
@click.option("--follow", is_flag=True, help="Go on with what comes (Ctrl-C stops).")
def logs(mode: Mode, stage: str, region: str, profile: str | None, minutes: float, pattern: str, follow: bool) -> None:
    """Print what the servers or functions wrote.

    \b
    Example:
      deploy logs --mode lambda --stage prod --region ap-southeast-1 --filter ERROR --minutes 60
    """
    since, seen = time.time() - minutes * 60, set()
    with _clear_errors(), contextlib.suppress(KeyboardInterrupt):
        operator = _operator(Target(mode, stage, region), profile)
        while True:
            for line in operator.logs(since, pattern):
                if line.id not in seen:
                    seen.add(line.id)
                    since = max(since, line.at - 60)  # lines of other groups may come a while later
                    click.echo(f"{time.strftime('%H:%M:%S', time.localtime(line.at))}  {line.source:<14} {line.text}")
            if not follow:
                return
            time.sleep(2)


# --- down ---------------------------------------------------------------------------------------------------------------------


@deploy.command()
@_target_options
@click.option(
    "--delete-data", is_flag=True, help="Delete tables, secrets and artifacts, too; asks for the stage's name."
)
@click.option("--yes", is_flag=True, help="Do not ask. With --delete-data give --confirm, too.")
@click.option("--confirm", metavar="NAME", help="The stage's name, to delete its data without being asked.")
def down(
    mode: Mode, stage: str, region: str, profile: str | None, delete_data: bool, yes: bool, confirm: str | None
) -> None:
    """Take a deployment down. Records, journal and keys stay, unless --delete-data says otherwise.

    \b
    Example:
      deploy down --mode lambda --stage trial --region ap-southeast-1
    """
    with _clear_errors():
        operator = _operator(Target(mode, stage, region), profile)
        stacks = operator.stacks()
        if mode not in stacks and not delete_data:
            raise BadInput(f"--stage: proctorwire-{stage}-{mode} is not deployed in {region}")
        if delete_data:
            others = operator.others()
            if others:
                raise BadInput(f"--delete-data: {', '.join(others)} still uses the data; take it down first")
            typed = confirm
            if typed is None and not yes and sys.stdin.isatty():
                typed = click.prompt(f"This deletes every record and journal of {stage}. Type its name")
            if typed != stage:
                raise BadInput(f"--confirm: to delete the data of {stage}, give its name")
        elif not yes and not _confirmed(f"Take proctorwire-{stage}-{mode} down?"):
            raise Failed("nothing was changed")
        _follow(operator.down())
        if delete_data:
            _follow(operator.delete_data())
        elif "shared" in stacks:
            click.echo(f"the data of {stage} stays; `deploy down --delete-data` deletes it, too")


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_INTERRUPTED))
    deploy()


if __name__ == "__main__":
    main()
