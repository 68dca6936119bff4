"""An instance that ends TLS itself: configured by the environment alone, as its systemd unit does it."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import sys

import certificates
import pytest

from adapters.ec2_cluster.config import new_secret


def test_health_is_answered_over_tls_and_not_without(tmp_path):
    certificate = certificates.for_localhost(tmp_path)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PROCTORWIRE_TOKEN_SECRET": new_secret(),
        "PROCTORWIRE_PORT": "0",
        "PROCTORWIRE_DATA_DIR": str(tmp_path),
        "PROCTORWIRE_TLS_CERTIFICATE": str(certificate.chain),
        "PROCTORWIRE_TLS_KEY": str(certificate.key),
        "PROCTORWIRE_DIE_WITH_PARENT": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "adapters.ec2_cluster"], env=environment, stdout=subprocess.PIPE
    ) as server:
        try:
            ready = json.loads(server.stdout.readline())
            assert ready["url"].startswith("wss://")
            trusting = ssl.create_default_context(cafile=str(certificate.authority))
            over_tls = http.client.HTTPSConnection("localhost", ready["port"], timeout=10, context=trusting)
            over_tls.request("GET", "/readyz")
            assert over_tls.getresponse().status == 200
            over_tls.close()
            plain = http.client.HTTPConnection("127.0.0.1", ready["port"], timeout=10)
            plain.request("GET", "/readyz")
            with pytest.raises((http.client.HTTPException, OSError)):
                plain.getresponse()
            plain.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
