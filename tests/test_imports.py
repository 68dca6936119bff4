"""Which module may import which: the layers point one way, and each process loads only what it needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("core", "adapters", "compare", "deploy")
MAY_IMPORT = {
    "core": {"core"},
    "adapters.dynamodb_keys": {"core"},
    "adapters.lambda_apigw": {"core", "adapters.dynamodb_keys", "adapters.lambda_apigw", "adapters.web"},
    "adapters.ec2_cluster": {"core", "adapters.dynamodb_keys", "adapters.ec2_cluster", "adapters.web"},
    "adapters.web": {"core", "adapters.dynamodb_keys", "adapters.web"},
    # the groups of compare, in their order; what is figures or pages alone knows neither the domain nor a deployment
    "compare.bill": {"compare.bill"},
    "compare.run": {"core", "adapters", "compare.bill", "compare.run"},
    "compare.model": {"core", "compare.bill", "compare.run", "compare.model"},
    "compare.faults": {"core", "adapters", "compare.bill", "compare.run", "compare.faults"},
    "compare.bench": {"core", "adapters", "compare.bill", "compare.run", "compare.bench"},
    "compare.advice": {"compare.bill", "compare.run", "compare.model", "compare.advice"},
    "compare.pages": {*(f"compare.{group}" for group in ("bill", "run", "model", "faults", "advice", "pages"))},
    "compare": {"core", "adapters", "compare"},
    "deploy": {"core", "adapters", "compare", "deploy"},
}
"""What a package of ours may import of ours. `web` knows neither adapter; both may serve it."""


def modules() -> list[tuple[str, Path]]:
    """All modules of the product, by name."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imported(name: str, path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, as absolute names."""
    names: set[str] = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def layer_of(name: str) -> str | None:
    return next((layer for layer in MAY_IMPORT if name == layer or name.startswith(f"{layer}.")), None)


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layers_point_one_way(layer):
    allowed = MAY_IMPORT[layer]
    wrong = [
        f"{name} imports {target}"
        for name, path in modules()
        if layer_of(name) == layer
        for target in sorted(imported(name, path))
        if target.split(".")[0] in PACKAGES
        and target != "adapters"
        and not any(target == ours or target.startswith(f"{ours}.") for ours in allowed)
    ]
    assert wrong == []


def test_each_group_of_compare_is_in_that_order_and_in_its_map():
    """A new folder is given its place; and each map names what there is, so that it is no map of what there was."""
    groups = {path.parent.name for path in (ROOT / "compare").glob("*/__init__.py")}
    assert groups - {"commands"} == {layer.split(".")[1] for layer in MAY_IMPORT if layer.startswith("compare.")}
    for folder in (ROOT / "compare", *(ROOT / "compare" / group for group in groups - {"commands"})):
        shown = set(
            re.findall(r"[a-z_]+(?:\.[a-z]+|/)", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())))
        )
        there = {f"{path.name}/" if path.is_dir() else path.name for path in folder.glob("[!.]*")}
        assert there - shown == there & {"__init__.py", "__pycache__/", "py.typed"}, folder.name
        assert {name for name in shown if name.endswith((".py", "/"))} <= there, folder.name


def test_the_product_imports_no_tests():
    wrong = [
        name for name, path in modules() if any(t.split(".")[0] in ("tests", "pytest") for t in imported(name, path))
    ]
    assert wrong == []


def test_core_imports_the_standard_library_and_msgspec_only():
    """By the source: whatever is imported late is found too. PyJWT is the one exception, in `identity`."""
    foreign = {
        (name, target.split(".")[0])
        for name, path in modules()
        if layer_of(name) == "core"
        for target in imported(name, path)
        if target.split(".")[0] not in {*sys.stdlib_module_names, "core", "msgspec"}
    }
    assert foreign <= {("core.identity", "jwt")}


def loaded_by(*names: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after importing these modules, and ours in full."""
    code = f"import sys\nfor name in {names!r}: __import__(name)\nprint(' '.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.split())


def test_loading_core_loads_nothing_else():
    loaded = loaded_by(*(name for name, _ in modules() if layer_of(name) == "core"))
    at_start = loaded_by()
    allowed = {
        *sys.stdlib_module_names,
        "core",
        "msgspec",
        "typing_extensions",
    }  # the last by msgspec, where it is installed
    assert {name.split(".")[0] for name in loaded - at_start} <= allowed
    assert "jwt" not in loaded


def test_core_reads_no_clock_and_no_environment():
    """Nothing there may depend on anything but its arguments."""
    forbidden = {"time", "os", "random", "uuid", "socket", "asyncio", "threading", "secrets"}
    wrong = [(name, sorted(imported(name, path) & forbidden)) for name, path in modules() if layer_of(name) == "core"]
    assert [pair for pair in wrong if pair[1]] == []


# botocore itself is a stub that aws-lambda-powertools tags with its name; its session is what weighs
HEAVY = (
    "boto3",
    "botocore.session",
    "redis",
    "hiredis",
    "picows",
    "websockets",
    "uvloop",
    "pydantic",
    "flask",
    "werkzeug",
    "sqlalchemy",
    "pg8000",
)


@pytest.mark.parametrize(
    ("module", "must_not"),
    [
        # what an invocation for a message loads: each of these would lengthen every cold start
        ("adapters.lambda_apigw.handler", (*HEAVY, "jwt", "adapters.ec2_cluster", "compare")),
        # DynamoDB is the journal's business: a worker knows Redis only
        (
            "adapters.ec2_cluster.worker",
            (
                *("boto3", "botocore", "flask", "werkzeug", "pydantic", "jinja2", "sqlalchemy", "adapters.web.records"),
                *("adapters.lambda_apigw", "compare"),
            ),
        ),
        # records in a database: whoever has them there opens them; the function's are in a table
        ("adapters.lambda_apigw.http", ("sqlalchemy", "pg8000", "boto3", "redis", "compare")),
        ("adapters.ec2_cluster.web", ("sqlalchemy", "pg8000", "boto3", "adapters.lambda_apigw")),
    ],
)
def test_each_process_loads_only_what_it_needs(module, must_not):
    loaded = loaded_by(module)
    assert sorted(name for name in must_not if name in loaded) == []
