"""The folder that a run is written to: its figures as `result.json` and its page as `report.html`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from compare.pages.faults import kept
from compare.pages.report import html_report
from compare.run.comparison import BadInput
from compare.run.result import Result, encode_result


def prepare_output(folder: Path) -> None:
    """See that the folder can be written to. Raises `BadInput`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise BadInput(
            f"--output: can't write to {folder} ({exc.strerror}); give a folder that you may write to"
        ) from exc


def write_output(folder: Path, result: Result) -> tuple[Path, Path]:
    """Write `result.json` and `report.html`; their paths. Raises `BadInput`."""
    paths = folder / "result.json", folder / "report.html"
    try:
        for path, content in zip(
            paths, (encode_result(result), html_report(result, kept(folder)).encode()), strict=True
        ):
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_bytes(content)
            draft.replace(path)
    except OSError as exc:
        raise BadInput(f"--output: can't write to {folder} ({exc.strerror})") from exc
    return paths
