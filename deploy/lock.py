"""Write `requirements/*.txt`: the libraries of each artifact, with the hashes of the wheels that may go into it.

For maintainers, after a change of versions in constraints.txt: `python -m deploy.lock`. pip resolves them for each platform; the
files hold what it found, so that a build takes these wheels and no others.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.package import EC2, LAMBDA, Target

WANTED = {
    LAMBDA: ("msgspec", "PyJWT", "aws-lambda-powertools", "serverless-wsgi", "flask"),
    EC2: (
        "msgspec",
        "PyJWT",
        "picows",
        "uvloop",
        "hiredis",
        "redis",
        "websockets",
        "flask",
        "waitress",
        "boto3",
        "click",
        "aws-lambda-powertools",
        "SQLAlchemy",
        "pg8000",
    ),
}
"""What the code of an artifact imports; pip adds what these need. boto3 comes with Lambda's own runtime."""


def lock(target: Target, wanted: tuple[str, ...], constraints: Path) -> str:
    """The requirements file of an artifact."""
    pins: dict[str, set[str]] = {}
    for architecture in ("arm64", "x86_64"):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                    *target.pip_options(architecture),
                    *("--dest", folder, "-c", str(constraints), *wanted),
                ],
                check=True,
            )
            for wheel in Path(folder).iterdir():
                name, version = wheel.name.split("-")[:2]
                digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                pins.setdefault(f"{name.lower().replace('_', '-')}=={version}", set()).add(digest)
    lines = [
        " \\\n    ".join((pin, *(f"--hash=sha256:{digest}" for digest in sorted(digests))))
        for pin, digests in sorted(pins.items())
    ]
    return "\n".join(("# written by `python -m deploy.lock`", *lines, ""))


if __name__ == "__main__":
    root = Path(__file__).parent
    for target, wanted in WANTED.items():
        target.requirements.write_text(lock(target, wanted, root.parent / "constraints.txt"))
        print(target.requirements)
