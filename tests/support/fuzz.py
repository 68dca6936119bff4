"""`make fuzz`: every target under atheris, then the HTTP API under schemathesis, each for its share of the time.

Ends with the first crash, keeps the input that brought it about in `build/fuzz`, and says how to play it again.

make fuzz                                        ten minutes, shared by all targets
make fuzz ARGS="--seconds 60"
make fuzz ARGS="--only frame --only connection"  the decoder and the message layer
make fuzz ARGS="--only http"
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HTTP = "http"
CRASHES = Path(__file__).parents[2] / "build" / "fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--only", action="append", help="this target; may be given again")
    parser.add_argument("--target", help=argparse.SUPPRESS)  # this process is the fuzzer of one
    given, rest = parser.parse_known_args()
    if given.target:
        fuzz(given.target, rest)
        return 0
    from fuzz_targets import SEEDS, TARGETS

    known = (*TARGETS, HTTP)
    names = given.only or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no target {unknown[0]}; there are {', '.join(known)}")
    CRASHES.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == HTTP:
            if code := fuzz_http(max(1, given.seconds // len(names))):
                return code
            continue
        with tempfile.TemporaryDirectory(prefix="proctorwire-fuzz-") as corpus:
            for number, seed in enumerate(SEEDS[name]):
                (Path(corpus) / str(number)).write_bytes(seed)
            seconds = max(1, given.seconds // len(names))
            print(f"{name}: {seconds} s", flush=True)
            command = [
                sys.executable,
                __file__,
                "--target",
                name,
                corpus,
                f"-max_total_time={seconds}",
                "-max_len=4096",
                f"-artifact_prefix={CRASHES}/{name}-",
            ]
            done = subprocess.run([*command, "-print_final_stats=1"], capture_output=True, text=True, check=False)
            print(
                "\n".join(line for line in done.stderr.splitlines() if line.startswith("stat::number_of")), flush=True
            )
            if done.returncode:
                print(done.stdout[-3000:] + done.stderr[-3000:])
                for crash in sorted(CRASHES.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime)[-1:]:
                    print(f"again: {shlex.join([sys.executable, __file__, '--target', name, str(crash)])}")
                return 1
    return 0


def fuzz_http(seconds: int) -> int:
    """Go on with the test of the OpenAPI document for so long."""
    print(f"{HTTP}: {seconds} s", flush=True)
    test = Path(__file__).parents[1] / "adapters" / "web" / "test_web_openapi.py"
    environment = {**os.environ, "PROCTORWIRE_FUZZ_SECONDS": str(seconds)}
    return subprocess.run([sys.executable, "-m", "pytest", "-q", str(test)], env=environment, check=False).returncode


def fuzz(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["core", "adapters", "fuzz_targets"]):
        from fuzz_targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
