"""The artifacts: the same bytes twice, nothing missing on Lambda's Python, nothing in them that is not used."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
from lambda_zip import lambda_zip

from deploy import package
from deploy.package import EC2, LAMBDA, MAX_UNPACKED_BYTES, PackageError, Target, build_ec2, build_lambda, find_python

ROOT = Path(__file__).parent.parent.parent


def test_an_installed_package_has_every_file_of_the_repository():
    """Tables, styles, scripts and templates are read from where the package lies, which need not be a checkout."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        shipped = tomllib.load(file)["tool"]["setuptools"]["package-data"]["*"]
    folders = [ROOT / name for name in ("core", "adapters", "compare", "deploy")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) > 250
    assert [f for f in files if f.suffix != ".py" and not any(fnmatch(f.name, one) for one in shipped)] == []


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the sources, so that an edit between two builds is not taken for a difference."""
    root = tmp_path_factory.mktemp("sources")
    package.copy_sources(
        root,
        (
            "core",
            "adapters/dynamodb_keys.py",
            "adapters/lambda_apigw",
            "adapters/ec2_cluster",
            "adapters/web",
            "deploy",
        ),
    )
    return root


@pytest.fixture(scope="module")
def zips(sources, tmp_path_factory):
    """Both processors, and one of them twice: the second time with the same wheels, which their hashes guarantee."""
    kept, pip = tmp_path_factory.mktemp("fetched") / "wheels", package._pip

    def fetch_once(command, target, architecture, *options):
        if not kept.exists():
            pip(command, target, architecture, "--no-compile", "--target", str(kept))
        shutil.copytree(kept, options[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "_SOURCES", sources)
        patch.setattr(package, "_pip", fetch_once)
        twice = {("arm64", number): build_lambda(tmp_path_factory.mktemp("zip"), "arm64") for number in (1, 2)}
    return {**twice, ("x86_64", 1): lambda_zip("x86_64")}


def test_two_builds_are_the_same_bytes(zips):
    assert zips["arm64", 1].sha256 == zips["arm64", 2].sha256
    assert zips["arm64", 1].key == zips["arm64", 2].key


def test_the_zip_is_small_and_for_its_processor(zips):
    for (architecture, _), artifact in zips.items():
        assert artifact.unpacked_bytes < MAX_UNPACKED_BYTES
        machine = {"arm64": b"\xb7\x00", "x86_64": b"\x3e\x00"}[architecture]
        with zipfile.ZipFile(artifact.path) as archive:
            libraries = [name for name in archive.namelist() if name.endswith(".so")]
            assert libraries
            for name in libraries:
                assert archive.read(name)[18:20] == machine, name  # e_machine of the ELF header


def test_the_zip_holds_nothing_of_this_machine(zips):
    with zipfile.ZipFile(zips["arm64", 1].path) as archive:
        names = archive.namelist()
        assert not [
            name for name in names if name.startswith(("bin/", "adapters/ec2_cluster", "adapters/lambda_apigw/local"))
        ]
        assert not [name for name in names if name.endswith(("RECORD", "INSTALLER"))]
        assert not [name for name in names if name.startswith(("boto3", "botocore"))], "Lambda's own runtime has it"
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not [name for name in names if str(ROOT).encode() in archive.read(name)]


def test_handlers_import_on_lambdas_python_from_the_zip_alone(zips, tmp_path):
    python = find_python(LAMBDA.python)
    if python is None or sys.platform != "linux":
        pytest.skip(f"no Python {LAMBDA.python} here")
    with zipfile.ZipFile(zips["x86_64", 1].path) as archive:
        archive.extractall(tmp_path)
    runtime = tmp_path / "what Lambda's own runtime has"
    runtime.mkdir()
    for name in ("boto3", "botocore", "s3transfer", "dateutil", "urllib3", "six"):
        library = Path(importlib.import_module(name).__file__)
        library = library.parent if library.name == "__init__.py" else library
        (runtime / library.name).symlink_to(library)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(runtime)!r}]\n"
        "import adapters.lambda_apigw.handler, adapters.lambda_apigw.authorizer, adapters.lambda_apigw.http\n"
        "import aws_lambda_powertools.utilities.parameters\n"
        "import flask; assert flask.__file__.startswith(sys.path[0])\n"
        "print(adapters.lambda_apigw.handler.__cached__)"
    )
    ran = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert Path(ran.stdout.strip()).is_file(), "its bytecode is in the zip"


def test_a_bundle_for_instances_is_the_same_bytes_twice(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "_SOURCES", sources)
    one = build_ec2(tmp_path / "one", "arm64")
    with tarfile.open(one.path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
        names = archive.getnames()
    assert {"requirements.txt", "app/core/decide.py", "app/adapters/ec2_cluster/supervisor.py"} <= set(names)
    assert not [name for name in names if name.startswith("app/adapters/lambda_apigw/local")]
    app = str(tmp_path / "unpacked/app")
    code = f"import sys; sys.path.insert(0, {app!r}); import deploy.bridge as b; assert b.__file__.startswith({app!r})"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr[-2000:]

    def the_same_wheels(_command, _target, _architecture, _option, folder):
        shutil.copytree(tmp_path / "unpacked/wheels", folder)

    monkeypatch.setattr(package, "_pip", the_same_wheels)
    assert build_ec2(tmp_path / "two", "arm64").sha256 == one.sha256


@pytest.mark.parametrize("target", [LAMBDA, EC2])
def test_libraries_are_the_versions_that_are_tested(target):
    """After a change of constraints.txt: `python -m deploy.lock`."""
    tested = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", target.requirements.read_text(), re.MULTILINE))
    assert pinned
    assert {name: tested.get(name) for name in pinned} == pinned


def test_what_can_not_be_fetched_is_one_line(tmp_path, monkeypatch):
    wrong = Target("lambda", "3.13", ())
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/lambda.txt").write_text("msgspec==0.22.0 --hash=sha256:" + "0" * 64)
    monkeypatch.setattr(package, "_HERE", tmp_path)
    monkeypatch.setattr(package, "LAMBDA", wrong)
    with pytest.raises(PackageError) as raised:
        build_lambda(tmp_path, "arm64")
    assert "\n" not in str(raised.value)
    assert "libraries for lambda on arm64" in str(raised.value)
