"""One instance, configured by the environment alone; prints one line of JSON when it accepts connections.

With `PROCTORWIRE_DIE_WITH_PARENT` it ends when the process that started it does, however that ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from adapters.ec2_cluster.config import SettingsError, read_settings
from adapters.ec2_cluster.supervisor import serve

_PR_SET_PDEATHSIG = 1  # prctl(2)

if __name__ == "__main__":
    if os.environ.get("PROCTORWIRE_DIE_WITH_PARENT"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    try:
        sys.exit(serve(read_settings({}), as_json=True))
    except SettingsError as error:
        print(error)
        sys.exit(2)
