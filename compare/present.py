"""How results leave a command: as text for a terminal, Markdown, CSV, JSON or a page; and progress with the time that is left.

A command prints once, to a `Printed`; every format but JSON is made from that, so that none of them says anything else. JSON is the
record itself. Colours are for terminals only (and not with NO_COLOR), progress goes to standard error of a terminal only.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
from rich.console import Console, Group
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from compare.pages.markup import Markup, element
from compare.pages.parts import data_table, document

Format: TypeAlias = Literal["text", "md", "csv", "json", "html"]
FORMATS: tuple[Format, ...] = ("text", "md", "csv", "json", "html")
QUIET_SECONDS = 2.0
"""Work that is over sooner shows no progress."""


class Out(Protocol):
    """A rich console, or what keeps what is printed."""

    def print(self, *what: Any, **how: Any) -> None:
        """Print it, or keep it."""


class Sheet(msgspec.Struct, frozen=True):
    """A table as plain text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Printed:
    """Takes what a command prints, as a rich console does, and keeps it."""

    def __init__(self) -> None:
        self.pieces: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def print(self, *what: Any, **how: Any) -> None:
        """Keep it."""
        self.pieces.append((what, how))

    def replay(self, out: Console) -> None:
        """Print it now."""
        for what, how in self.pieces:
            out.print(*what, **how)

    def parts(self) -> Iterator[str | Sheet]:
        """What was printed, in order, as plain paragraphs and tables."""
        for what, _ in self.pieces:
            for piece in what:
                yield from _parts(piece)


def _parts(piece: Any) -> Iterator[str | Sheet]:
    if isinstance(piece, Table):
        yield _sheet(piece)
    elif isinstance(piece, Group):
        for child in piece.renderables:
            yield from _parts(child)
    elif isinstance(piece, Padding):
        yield from _parts(piece.renderable)
    else:
        words = _plain(piece).strip()
        if words:
            yield words


def _plain(piece: Any) -> str:
    return Text.from_markup(piece).plain if isinstance(piece, str) else str(getattr(piece, "plain", piece))


def _sheet(table: Table) -> Sheet:
    columns = [[_plain(cell).strip() for cell in column.cells] for column in table.columns]
    heads = tuple(_plain(column.header).strip() for column in table.columns) if table.show_header else ()
    rows = tuple(row for row in zip(*columns, strict=True) if any(row))
    return Sheet(_plain(table.title or "").strip(), heads if any(heads) else (), rows)


# --- the formats ----------------------------------------------------------------------------------------------------------


def present(
    form: Format,
    found: Any,
    show: Callable[[Out], None],
    *,
    title: str,
    page: Callable[[], str] | None = None,
) -> None:
    """Write a result to standard output. `show` prints it to a console; `page` makes a page of its own, if there is one."""
    if form == "json":
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return
    if form == "html" and page is not None:
        sys.stdout.write(page())
        return
    printed = Printed()
    show(printed)
    if form == "text":
        printed.replay(console())
    else:
        sys.stdout.write(
            {"md": markdown, "csv": comma_separated, "html": plain_page}[form](title, list(printed.parts()))
        )


def markdown(title: str, parts: Sequence[str | Sheet]) -> str:
    """Paragraphs and tables of GitHub's Markdown."""
    blocks = [f"# {title}"]
    for part in parts:
        if isinstance(part, str):
            blocks.append(_escaped(part))
            continue
        if part.title:
            blocks.append(f"## {_escaped(part.title)}")
        width = len(part.rows[0]) if part.rows else len(part.heads)
        heads = part.heads or ("",) * width
        lines = [_row(heads), _row(("---",) * len(heads)), *[_row(row) for row in part.rows]]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell).replace("\n", "<br>") for cell in cells) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def comma_separated(_title: str, parts: Sequence[str | Sheet]) -> str:
    """The tables only, each with its heading, an empty line between them."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    for number, sheet in enumerate(part for part in parts if isinstance(part, Sheet)):
        if number:
            out.write("\n")
        if sheet.heads:
            write.writerow([head.replace("\n", " ") for head in sheet.heads])
        write.writerows([[cell.replace("\n", " ") for cell in row] for row in sheet.rows])
    return out.getvalue()


def plain_page(title: str, parts: Sequence[str | Sheet]) -> str:
    """A page of the comparison's style with the same words and tables."""
    return document(
        f"Proctorwire: {title}",
        title,
        "",
        [
            element(
                "section",
                element("h1", title[:1].upper() + title[1:]),
                *[_on_page(part) for part in parts],
                class_="summary",
            )
        ],
        "Made by the compare command; --format json has the same figures.",
    )


def _on_page(part: str | Sheet) -> Markup:
    if isinstance(part, str):
        return element("p", part)
    width = len(part.rows[0]) if part.rows else len(part.heads)
    words = [0, *[column for column in range(1, width) if not _is_numbers(row[column] for row in part.rows)]]
    return data_table(part.title or None, part.heads or [""] * width, part.rows, words=words)


def _is_numbers(cells: Iterable[str]) -> bool:
    """Whether most of a column begins as a number does."""
    filled = [cell for cell in cells if cell]
    return 2 * sum(re.match(r"[-+<$]?\s?[$\d]|-$", cell) is not None for cell in filled) > len(filled)


def console() -> Console:
    """Where tables go: colours only on a terminal, and wide enough when there is none."""
    out = Console()
    return out if out.is_terminal else Console(width=max(120, out.width), color_system=None)


# --- progress -------------------------------------------------------------------------------------------------------------


class Steps:
    """Progress of work whose length is known; `step` moves it."""

    def __init__(self, progress: Progress, total: float) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total, note="")

    def tell(self, note: str) -> None:
        """What is going on now."""
        self._progress.update(self._task, note=note[:60])

    def step(self, amount: float = 1.0) -> None:
        """So much is done."""
        self._progress.advance(self._task, amount)

    def reach(self, done: float) -> None:
        """So much is done in all."""
        self._progress.update(self._task, completed=done)


@contextlib.contextmanager
def progress(title: str, total: float, *, quiet: bool) -> Iterator[Steps]:
    """A bar with the time that is left, on standard error, for work that takes longer than two seconds."""
    err = Console(stderr=True)
    bars = Progress(
        TextColumn(title),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=err,
        disable=quiet or not err.is_terminal,
    )
    later = threading.Timer(QUIET_SECONDS, bars.start)
    later.daemon = True
    later.start()
    try:
        yield Steps(bars, total)
    finally:
        later.cancel()
        later.join()
        bars.stop()
