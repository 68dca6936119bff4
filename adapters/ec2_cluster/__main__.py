"""One instance, configured by the environment alone; prints one line of JSON when it accepts connections."""

from __future__ import annotations

import sys

from adapters.ec2_cluster.config import SettingsError, read_settings
from adapters.ec2_cluster.supervisor import serve

if __name__ == "__main__":
    try:
        sys.exit(serve(read_settings({}), as_json=True))
    except SettingsError as error:
        print(error)
        sys.exit(2)
