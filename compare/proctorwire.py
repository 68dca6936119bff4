"""The `proctorwire` command: run a cluster instance, make tokens, serve the HTTP API. Thin: each command calls the library."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from compare.commands import bench, serverless
from compare.commands.admin import admin
from compare.commands.records import purge, records
from core.identity import Principal, issue

_HOURS = 3600.0


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="proctorwire")
def main() -> None:
    """Real-time monitoring of online exams: run and operate it."""


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port of sockets and health checks; 0 takes a free one.  [default: 8080]")
@click.option("--workers", type=int, help="Worker processes, one a core.  [default: 1]")
@click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    help="Redis to share with other instances, or any node of a Redis Cluster; without it, an embedded one.",
)
@click.option("--token-secret", metavar="S", help="Secret that signs tokens (HS256), or kid:secret,kid:secret.")
@click.option("--token-secret-file", metavar="FILE", help="File with the secret, or with kid:secret on each line.")
@click.option("--jwks", metavar="FILE|URL", help="Public keys of an LMS that signs tokens with RS256, ES256 or EdDSA.")
@click.option("--audience", metavar="TEXT", help="What a token's `aud` must name.  [default: tokens without aud]")
@click.option("--transport", type=click.Choice(["picows", "websockets"]), help="WebSocket library.  [default: picows]")
@click.option("--data-dir", metavar="DIR", help="Where an embedded Redis and the journal keep their files.")
@click.option(
    "--journal", metavar="FILE", help="SQLite file of the journal, or dynamodb:TABLE.  [default: in the data folder]"
)
@click.option(
    "--tls-cert",
    "--tls-certificate",
    "tls_certificate",
    metavar="PEM",
    help="Certificate chain: with it, the port takes TLS only.",
)
@click.option("--tls-key", metavar="PEM", help="Its key.  [default: in the same file]")
@click.option("--drain-seconds", type=float, help="Over how long SIGTERM sends clients elsewhere.  [default: 20]")
@click.option("--origins", metavar="LIST", help="Web origins allowed besides the host's own, comma-separated.")
@click.option("--messages-per-second", type=float, help="What one connection may send, in the long run.  [default: 20]")
@click.option("--message-burst", type=int, help="And at once.  [default: 60]")
@click.option("--connections-per-address", type=int, help="An exam hall is one address.  [default: 20000]")
@click.option("--admin-port", type=int, help="Port of /metrics on 127.0.0.1; -1 for none.  [default: port + 1000]")
@click.option("--admin-host", help="Address of that port.  [default: 127.0.0.1]")
@click.option("--emf", metavar="FILE", help="Append a line a minute of CloudWatch's embedded metric format.")
@click.option("--emf-group", metavar="NAME", help="Metrics of all instances with this name together, not of each.")
@click.option("--emf-metrics", metavar="LIST", help="Which figures become metrics, comma-separated.  [default: all]")
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="[default: INFO]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@click.option("--config", metavar="TOML", help="A file with any of these settings.")
@click.option("--print-config", is_flag=True, help="Print the settings as they would be, secrets masked, and end.")
@click.option("--json", "as_json", is_flag=True, help="Announce readiness as one line of JSON.")
def serve(as_json: bool, print_config: bool, **given: Any) -> None:
    """Run one instance: supervisor, workers, journal and, without --redis, an embedded Redis.

    Each option is also read from the environment, as PROCTORWIRE_ and its name (PROCTORWIRE_TOKEN_SECRET,
    PROCTORWIRE_REDIS_URL, PROCTORWIRE_WORKERS and so on), and then from --config. Two instances with the same --redis are
    one cluster.

    \b
    Example:
      export PROCTORWIRE_TOKEN_SECRET=$(python -c 'import secrets; print(secrets.token_hex(32))')
      proctorwire serve --workers 2 --port 8080
    """
    from adapters.ec2_cluster.config import SettingsError, read_settings, show_settings
    from adapters.ec2_cluster.supervisor import serve as run

    try:
        settings = read_settings(given)
        if print_config:
            click.echo(show_settings(settings))
            return
        sys.exit(run(settings, as_json=as_json))
    except SettingsError as error:
        raise BadInput(str(error)) from error


@main.command()
@click.option("--role", type=click.Choice(["student", "proctor"]), required=True, help="Whose token.")
@click.option("--school", required=True, help="The school.")
@click.option(
    "--quiz", "quiz_ids", multiple=True, required=True, help="The exam (its quiz_id); a proctor may have several."
)
@click.option("--id", "subject", required=True, help="The student's or proctor's id.")
@click.option("--attempt", default="", help="A student's quiz_attempt_id.")
@click.option("--name", default="", help="A name to show.")
@click.option("--group", default="", help="A student's group; a proctor with one sees only that.")
@click.option(
    "--hours", default=4.0, show_default=True, type=click.FloatRange(0.01, 24 * 31), help="How long it is valid."
)
@click.option("--token-secret", envvar="PROCTORWIRE_TOKEN_SECRET", help="Secret that signs tokens, or kid:secret.")
@click.option(
    "--audience", default="", envvar="PROCTORWIRE_AUDIENCE", help="For a service that wants its name in `aud`."
)
def token(
    role: Any,
    school: str,
    quiz_ids: tuple[str, ...],
    subject: str,
    attempt: str,
    name: str,
    group: str,
    hours: float,
    token_secret: str | None,
    audience: str,
) -> None:
    """Make a token for a student's page or a proctor's dashboard, and print it.

    \b
    Example:
      proctorwire token --role student --school demo --quiz math-1 --id s1 --attempt a1 --name "Budi Santoso"
      proctorwire token --role proctor --school demo --quiz math-1 --id p1
    """
    from adapters.ec2_cluster.config import SettingsError, read_secrets

    try:
        kid, secret = next(iter(read_secrets(token_secret, {}).items()))
    except SettingsError as error:
        raise BadInput(str(error)) from error
    if role == "student" and (len(quiz_ids) != 1 or not attempt):
        raise BadInput("a student's token needs exactly one --quiz and an --attempt")
    expires_at = time.time() + hours * _HOURS
    principal = Principal(role, school, subject, quiz_ids, expires_at, attempt_id=attempt, name=name, group=group)
    click.echo(issue(principal, secret, kid, audience))


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port of the API; 0 takes a free one.  [default: 8090]")
@click.option("--threads", type=int, help="Requests served at a time.  [default: 8]")
@click.option("--redis", "redis_url", metavar="URL", help="Its Redis or Redis Cluster, as for `serve`.")
@click.option(
    "--token-secret", metavar="S", help="Secret that signs tokens, the same as for `serve`; the first one signs."
)
@click.option("--school-keys", metavar="LIST", help="Who may call: school:key,school:key.")
@click.option(
    "--socket-url", metavar="URL", help="Where pages and dashboards connect.  [default: ws://127.0.0.1:8080/ws]"
)
@click.option(
    "--journal",
    metavar="PLACE",
    help="Where the cluster's journal is carried to, the same as for `serve`: timelines and the conversation come from there.",
)
@click.option(
    "--records",
    metavar="PLACE",
    help="Where keys, exams, rosters and assignments are kept: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or "
    "dynamodb:TABLE.  [default: beside the journal]",
)
@click.option("--audience", metavar="TEXT", help="The same as for `serve`: tokens are signed for it.")
@click.option("--endpoints", metavar="LIST", help="Further hosts that clients may be sent to, comma-separated.")
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="[default: INFO]")
@click.option("--json", "as_json", is_flag=True, help="Announce readiness as one line of JSON.")
def web(as_json: bool, **given: Any) -> None:
    """Serve the HTTP API of a cluster: tokens for the LMS, opening and closing exams, who takes them.

    Each option is also read from the environment, as PROCTORWIRE_ and its name (the first three as PROCTORWIRE_WEB_HOST and
    so on). Secrets belong there: other users of the machine see a command line.

    \b
    Example:
      export PROCTORWIRE_SCHOOL_KEYS=demo:$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
      proctorwire web --port 8090 --redis redis://127.0.0.1:6379
    """
    from adapters.ec2_cluster.config import SettingsError
    from adapters.ec2_cluster.web import read_web_settings
    from adapters.ec2_cluster.web import serve as run

    try:
        sys.exit(run(*read_web_settings(given), as_json=as_json))
    except SettingsError as error:
        raise BadInput(str(error)) from error


@main.command()
@click.option("--students", default=300, show_default=True, type=click.IntRange(1, 5_000), help="How many to simulate.")
@click.option(
    "--port",
    default=8090,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of the pages; 0 takes a free one.",
)
@click.option("--seed", default=1, show_default=True, help="Who the students are and what they are like.")
@click.option("--json", "as_json", is_flag=True, help="Print the links as one line of JSON.")
def demo(students: int, port: int, seed: int, as_json: bool) -> None:
    """Show it: a cluster, the web app and simulated students on this machine, until Ctrl-C.

    Prints a link to the proctor's dashboard and one to a demo exam that you can take yourself. Open both side by side.

    \b
    Example:
      proctorwire demo
      proctorwire demo --students 2000
    """
    import asyncio

    import msgspec

    from adapters.ec2_cluster.local import LocalClusterError
    from compare.demo import DemoError, Links
    from compare.demo import demo as run

    def tell(links: Links) -> None:
        if as_json:
            click.echo(msgspec.json.encode(links))
        else:
            click.echo(f"The proctor's dashboard:\n  {links.dashboard}\n")
            click.echo(f"The demo exam, to take yourself:\n  {links.exam}\n")
            click.echo(f"{students} simulated students are taking the exam. Ctrl-C ends.")

    try:
        asyncio.run(run(students, port, seed, tell))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass  # Ctrl-C, SIGTERM
    except (DemoError, LocalClusterError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...")
@click.option("--seed", default=1, show_default=True, help="Who does what when, and whom a fault hits.")
@click.option("--students", default=40, show_default=True, type=click.IntRange(8, 1_000), help="How many report.")
@click.option("--quick", is_flag=True, help="Only the half that takes less than a minute.")
@click.option("--list", "just_list", is_flag=True, help="Name the scenarios.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON a scenario.")
def chaos(names: tuple[str, ...], seed: int, students: int, quick: bool, just_list: bool, as_json: bool) -> None:
    """Bring every fault over a cluster on this machine, and check that nothing is lost.

    Real processes, a real Redis, students who report all the time; processes are killed and stopped, Redis is emptied, networks
    fall silent. Prints a table of scenario, invariants held and recovery time; the exit code is 1 if an invariant was broken.

    \b
    Example:
      proctorwire chaos
      proctorwire chaos redis-emptied worker-killed --seed 7
    """
    from compare.faults.chaos_report import run, scenarios_named

    chosen, unknown = scenarios_named(names, quick)
    if unknown:
        raise BadInput(f"no scenario {unknown}; --list names them")
    if just_list:
        for scenario in chosen:
            click.echo(f"{scenario.name:18} {scenario.what}")
        return
    sys.exit(0 if run(chosen, seed, students, as_json) else 1)


main.add_command(bench.bench_command)
main.add_command(serverless.lambda_group)
main.add_command(serverless.bench_command)


main.add_command(admin)
main.add_command(records)
main.add_command(purge)


class BadInput(click.ClickException):
    """An error that the user can mend: one line, exit code 2."""

    exit_code = 2


if __name__ == "__main__":
    main()
