"""The HTTP API of an instance, configured by the environment alone."""

from __future__ import annotations

import sys

from adapters.ec2_cluster.config import SettingsError
from adapters.ec2_cluster.web import read_web_settings, serve

if __name__ == "__main__":
    try:
        sys.exit(serve(*read_web_settings({}), as_json=True))
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
