"""Runs inside an execution environment: what the Lambda runtime does around a handler.

Started as `python -P environment_main.py FD` with the function's variables in the environment. Imports the handler
(INIT), then takes one event at a time from the socket FD and answers on it, and ends when the other side closes it.
Only modules the Lambda runtime itself has loaded are imported here, so that an import measured in INIT is the
handler's own.

From the gateway: length (4 bytes), deadline in epoch milliseconds (8 bytes, double), request id (36 bytes), event JSON.
To the gateway: length (4 bytes), JSON. First the INIT's figures or its failure, then one answer per event.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import struct
import sys
import time
import traceback
from typing import Any

_REQUEST = struct.Struct(">Id36s")
_ANSWER = struct.Struct(">I")
#: The peak is looked up at every so many invocations only: it costs as much as a trivial handler.
_MEMORY_EVERY = 16


class LambdaContext:
    """The context object; the fields of "Using the Lambda context object to retrieve Python function information"."""

    def __init__(self, request_id: str, deadline_ms: float) -> None:
        environ = os.environ
        self.aws_request_id = request_id
        self.function_name = environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = environ["_LOCAL_FUNCTION_ARN"]
        self.identity = None
        self.client_context = None
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's timeout, never below zero."""
        return max(0, int(self._deadline_ms - time.time() * 1000))


def _read(fd: int, size: int) -> bytes:
    """Exactly `size` bytes; exits when the gateway is gone."""
    parts = []
    while size:
        part = os.read(fd, size)
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _answer(fd: int, result: str = "null", **fields: object) -> None:
    """Send an answer; `result` is JSON already."""
    data = (json.dumps(fields, separators=(",", ":"))[:-1] + ',"result":' + result + "}").encode()
    view = memoryview(_ANSWER.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def _peak_rss_kb() -> int:
    """Peak resident memory of this program; `ru_maxrss` would begin with that of the process that started it."""
    try:
        with open("/proc/self/status", "rb") as status:
            _, _, rest = status.read().partition(b"VmHWM:")
        return int(rest.split(None, 1)[0])
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _describe(exc: BaseException) -> dict[str, object]:
    return {
        "errorMessage": str(exc),
        "errorType": type(exc).__name__,
        "stackTrace": traceback.format_tb(exc.__traceback__),
    }


def main() -> None:
    """Load the handler, then serve."""
    fd = int(sys.argv[1])
    os.set_inheritable(fd, False)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [""]
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        module, _, attribute = os.environ["_HANDLER"].partition(":")
        handler: Any = getattr(importlib.import_module(module), attribute)
    except Exception as exc:
        traceback.print_exc()
        _answer(fd, error=_describe(exc))
        sys.exit(1)
    _answer(
        fd,
        wall_ms=(time.perf_counter() - wall) * 1000,
        cpu_ms=(time.process_time() - cpu) * 1000,
        rss_kb=_peak_rss_kb(),
    )
    invocations, rss_kb = 0, 0
    while True:
        length, deadline_ms, request_id = _REQUEST.unpack(_read(fd, _REQUEST.size))
        data = _read(fd, length)
        wall, cpu = time.perf_counter(), time.process_time()
        result, error = "null", None
        try:
            result = json.dumps(handler(json.loads(data), LambdaContext(request_id.decode(), deadline_ms)))
        except Exception as exc:
            error = _describe(exc)
            traceback.print_exc()
        sys.stdout.flush()
        wall_ms, cpu_ms = (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000
        if invocations % _MEMORY_EVERY == 0:
            rss_kb = _peak_rss_kb()
        invocations += 1
        _answer(
            fd,
            wall_ms=wall_ms,
            cpu_ms=cpu_ms,
            rss_kb=rss_kb,
            error=error,
            result=result,
        )


if __name__ == "__main__":
    main()
