"""What the commands share: options with their defaults shown, errors as one line, JSON and tables."""

from __future__ import annotations

import contextlib
import functools
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from compare.bill.prices import PriceError
from compare.bill.stretch import CostError
from compare.model.calibration import CalibrationError
from compare.present import FORMATS, Format

Function = Callable[..., Any]


def option(name: str, default: Any, help: str, **more: Any) -> Callable[[Function], Function]:
    """An option with its default in the help."""
    return click.option(name, default=default, show_default=True, help=help, **more)


def region_options(command: Function) -> Function:
    """Whose prices: the region, and perhaps another table than the package's."""
    command = click.option(
        "--prices",
        "price_file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Price table written by `compare prices refresh`; without it the one in this package.",
    )(command)
    return option("--region", "ap-southeast-1", "AWS region of the prices.")(command)


calibration_option = click.option(
    "--calibration",
    "calibration_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Coefficients written by `compare calibrate`; without it those in this package.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress bar.")


def format_options(command: Function) -> Function:
    """`--format`, and `--json` for short; the command gets `form`."""

    @functools.wraps(command)
    def with_form(*args: Any, form: Format, as_json: bool, **more: Any) -> Any:
        return command(*args, form="json" if as_json else form, **more)

    with_form = click.option("--json", "as_json", is_flag=True, help="The same as --format json.")(with_form)
    return click.option(
        "--format",
        "form",
        default="text",
        show_default=True,
        type=click.Choice(FORMATS),
        help="How to print the result; html is a page of its own.",
    )(with_form)


@contextlib.contextmanager
def clear_errors(**options: str) -> Iterator[None]:
    """Library errors as one line that names the option; `prices`, `cost` say which options those are about."""
    try:
        yield
    except PriceError as exc:
        raise click.UsageError(f"{options.get('prices', '--region')}: {exc}") from exc
    except CalibrationError as exc:
        raise click.UsageError(f"--calibration: {exc}") from exc
    except CostError as exc:
        named = options.get("cost", "")
        raise click.UsageError(f"{named}: {exc}" if named else str(exc)) from exc


def in_range(option_name: str, value: float, least: float, most: float, unit: str = "") -> None:
    """Refuse a value out of range, in one line that says what to give."""
    if not least <= value <= most:
        raise click.UsageError(
            f"{option_name}: {value:g} is out of range; give {least:g} to {most:,.0f}{unit and f' {unit}'}"
        )


def print_json(value: Any) -> None:
    """Indented JSON of any record."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def write_page(path: Path, text: str, option_name: str = "--output") -> None:
    """Write a page, or say in one line why not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as exc:
        raise click.UsageError(
            f"{option_name}: can't write {path} ({exc.strerror}); give a file that you may write"
        ) from exc


def allow_many_sockets(wanted: int = 65_536) -> None:
    """Raise the soft limit of open files: one student is one socket, here and in the servers that we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
