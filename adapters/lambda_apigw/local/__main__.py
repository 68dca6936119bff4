"""The emulated gateway as a process of its own: `python -m adapters.lambda_apigw.local --settings FILE.json`.

Prints one line of JSON when it is ready (`websocket_url`, `management_url`, `control_url`, `control_token`, `pid`) and
runs until SIGTERM or SIGINT. Exit codes: 0 stopped, 2 the settings are wrong or a port is taken (one line on stderr).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys

import msgspec

from adapters.lambda_apigw.local import child_process
from adapters.lambda_apigw.local.service import LocalGateway
from adapters.lambda_apigw.local.settings import GatewaySettings, load_settings


async def serve(settings: GatewaySettings) -> None:
    """Run until a signal. Raises OSError if a port is taken."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with LocalGateway(settings) as gateway:
        ready = {
            "websocket_url": gateway.websocket_url,
            "management_url": gateway.management_url,
            "control_url": gateway.control_url,
            "control_token": gateway.control_token,
            "pid": os.getpid(),
        }
        print(msgspec.json.encode(ready).decode(), flush=True)
        await stop.wait()


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and serve; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m adapters.lambda_apigw.local", description=__doc__)
    parser.add_argument("--settings", required=True, metavar="FILE", help="GatewaySettings as JSON")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends (Linux)")
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        child_process.die_with_parent()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a socket for each connection
    try:
        asyncio.run(serve(load_settings(options.settings)))
    except (OSError, msgspec.MsgspecError, ValueError) as exc:
        print(f"{options.settings}: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
