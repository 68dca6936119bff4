"""What is sent to AWS: the zip of the Lambda functions, and the bundle that an EC2 instance installs itself from.

Both are made without Docker, for either processor, by pip's cross-platform mode from wheels whose hashes are in `requirements/`.
The same sources give the same bytes: entries are sorted, dated and owned alike, and stored without compression, since two zlibs
need not compress alike. So the hash of an artifact is its name, and an unchanged deployment changes nothing.

Lambda can't keep bytecode that Python compiles, so it is put in, if an interpreter of Lambda's version is here to compile it:
an import of ours then takes a third of the time.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

Architecture: TypeAlias = Literal["arm64", "x86_64"]
ARCHITECTURES: tuple[Architecture, ...] = ("arm64", "x86_64")

MAX_UNPACKED_BYTES = 9_000_000
_SOURCES = Path(__file__).resolve().parent.parent
_HERE = Path(__file__).resolve().parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_CODE = (
    ".py",
    ".lua",
    ".json",
    ".html",
    ".css",
    ".js",
    ".svg",
    ".woff2",
    ".service",
    ".sh",
    ".conf",
    ".logrotate",
    "py.typed",
)
_UNUSED = (
    "bin",
    "aws_lambda_powertools/event_handler",
    "werkzeug/debug",
    *(
        f"aws_lambda_powertools/utilities/{name}"
        for name in (
            *("auth_alpha", "batch", "circuit_breaker", "data_classes", "data_masking", "feature_flags", "idempotency"),
            *("kafka", "metadata", "parser", "serialization.py", "streaming", "validation"),
        )
    ),
)
"""Of the libraries on Lambda: what no function imports."""


class PackageError(Exception):
    """An artifact could not be made; the message is one line for the user."""


class Target(Struct, frozen=True):
    """For which Python an artifact is made, and with which libraries. `glibc` are minor versions that its wheels may ask for."""

    name: str
    python: str
    glibc: tuple[int, ...]

    @property
    def requirements(self) -> Path:
        """The file that says which wheels."""
        return _HERE / "requirements" / f"{self.name}.txt"

    def pip_options(self, architecture: Architecture) -> list[str]:
        """Options that make pip take wheels for the target, whatever this machine is."""
        machine = "aarch64" if architecture == "arm64" else "x86_64"
        tags = [f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in self.glibc)]
        options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.python]
        for tag in tags:
            options += ["--platform", tag]
        return options


LAMBDA = Target("lambda", "3.13", tuple(range(17, 35)))
"""Lambda's Python 3.13 runs on Amazon Linux 2023, glibc 2.34."""

EC2 = Target("ec2", "3.11", tuple(range(17, 35)))
"""Amazon Linux 2023 again, with its package python3.11."""


class Artifact(Struct, frozen=True):
    """A file to send. `unpacked_bytes` is what Lambda's limit counts."""

    path: Path
    architecture: Architecture
    sha256: str
    bytes: int
    unpacked_bytes: int
    precompiled: bool = False

    @property
    def key(self) -> str:
        """Its name in the bucket."""
        return f"{self.path.stem}-{self.sha256[:16]}{self.path.suffix}"


def build_lambda(folder: Path, architecture: Architecture) -> Artifact:
    """The zip of all functions, `proctorwire-lambda-ARCHITECTURE.zip`. Raises PackageError."""
    with tempfile.TemporaryDirectory(prefix="proctorwire-package-") as temporary:
        build = Path(temporary) / "build"
        _pip("install", LAMBDA, architecture, "--no-compile", "--target", str(build))
        _prune(build)
        copy_sources(
            build,
            ("core", "adapters/dynamodb_keys.py", "adapters/lambda_apigw", "adapters/web"),
            without=("adapters/lambda_apigw/local",),
        )
        precompiled = _precompile(build)
        path = folder / f"proctorwire-lambda-{architecture}.zip"
        size = write_zip(build, path)
    if size > MAX_UNPACKED_BYTES:
        raise PackageError(
            f"{path.name} is {size:,} bytes unpacked; more than {MAX_UNPACKED_BYTES:,} slows cold starts"
        )
    return _artifact(path, architecture, size, precompiled)


def build_ec2(folder: Path, architecture: Architecture) -> Artifact:
    """What an instance installs itself from: wheels, our code, units and the script. Raises PackageError."""
    with tempfile.TemporaryDirectory(prefix="proctorwire-package-") as temporary:
        build = Path(temporary) / "build"
        _pip("download", EC2, architecture, "--dest", str(build / "wheels"))
        shutil.copyfile(EC2.requirements, build / "requirements.txt")
        packages = (
            "core",
            "adapters/dynamodb_keys.py",
            "adapters/ec2_cluster",
            "adapters/web",
            "adapters/lambda_apigw",
            "deploy/ec2_cluster/instance",
        )
        copy_sources(build / "app", packages, without=("adapters/lambda_apigw/local",))
        (build / "app/deploy/__init__.py").touch()
        for name in ("bridge.py", "bridge_sides.py"):
            _copy(_HERE / name, build / "app/deploy" / name)
        path = folder / f"proctorwire-ec2-{architecture}.tar"
        size = _write_tar(build, path)
    return _artifact(path, architecture, size, precompiled=False)


def copy_sources(build: Path, packages: tuple[str, ...], *, without: tuple[str, ...] = ()) -> None:
    """Our own code, packages or single modules, as it stands in this installation."""
    for package in packages:
        path = _SOURCES / package
        for source in [path] if path.is_file() else sorted(path.rglob("*")):
            relative = source.relative_to(_SOURCES)
            if not source.is_file() or not source.name.endswith(_CODE) or "__pycache__" in relative.parts:
                continue
            if any(relative.is_relative_to(other) for other in without):
                continue
            _copy(source, build / relative)
        for parent in Path(package).parents:
            init = _SOURCES / parent / "__init__.py"
            if parent != Path() and init.is_file():
                _copy(init, build / parent / "__init__.py")


def write_zip(build: Path, path: Path) -> int:
    """A folder as a zip of which each byte follows from the folder's content; how many bytes that is unpacked."""
    size = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for source in _files(build):
            info = zipfile.ZipInfo(source.relative_to(build).as_posix(), _EPOCH)
            info.create_system = 3  # Unix, whatever this is
            info.external_attr = 0o100644 << 16
            data = source.read_bytes()
            archive.writestr(info, data)
            size += len(data)
    return size


def _write_tar(build: Path, path: Path) -> int:
    size = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for source in _files(build):
            data = source.read_bytes()
            info = tarfile.TarInfo(source.relative_to(build).as_posix())
            info.size, info.mode = len(data), 0o755 if source.suffix == ".sh" else 0o644
            archive.addfile(info, io.BytesIO(data))
            size += len(data)
    return size


def _files(build: Path) -> Iterator[Path]:
    return iter(sorted((path for path in build.rglob("*") if path.is_file()), key=lambda p: p.as_posix()))


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _artifact(path: Path, architecture: Architecture, size: int, precompiled: bool) -> Artifact:
    data = path.read_bytes()
    return Artifact(path, architecture, hashlib.sha256(data).hexdigest(), len(data), size, precompiled)


def _pip(command: str, target: Target, architecture: Architecture, *options: str) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-input"),
            *target.pip_options(architecture),
            *("--no-deps", "--require-hashes", "-r", str(target.requirements), *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else (ran.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise PackageError(f"the libraries for {target.name} on {architecture} could not be fetched: {reason}")


def _prune(build: Path) -> None:
    """Take away what no function imports, and what pip wrote about this machine. Licences stay."""
    for unused in _UNUSED:
        path = build / unused
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for record in build.glob("*.dist-info/*"):
        if record.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            record.unlink()
    for unused_file in [*build.rglob("*.pyi"), *build.rglob("*.c"), *build.rglob("*.h")]:
        unused_file.unlink()


def find_python(version: str) -> str | None:
    """An interpreter of this version that runs here, or None."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        shutil.which(name),
        *(str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/{name}"), reverse=True)),
    ]
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        candidates.insert(0, sys.executable)
    for candidate in candidates:
        if candidate is not None and _runs(candidate):
            return candidate
    return None


def _runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _precompile(build: Path) -> bool:
    """Put bytecode beside the code; False if no interpreter of Lambda's version is here.

    Unchecked, because nobody changes a source on Lambda; without hash randomisation, which would show in the order of sets.
    """
    python = find_python(LAMBDA.python)
    if python is None:
        return False
    ran = subprocess.run(
        [
            *(python, "-I", "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(build), "-p", "/var/task", str(build)),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise PackageError(
            f"{python} could not compile the code: {(ran.stdout + ran.stderr).strip().splitlines()[-1:]}"
        )
    return True
