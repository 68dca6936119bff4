"""An instance that ends TLS itself: configured by the environment alone, as its systemd unit does it."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import ssl
import subprocess
import sys

import pytest

from adapters.ec2_cluster.config import new_secret


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program to make a certificate")
def test_health_is_answered_over_tls_and_not_without(tmp_path):
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    named = "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *made.split(), *named.split()], cwd=tmp_path, check=True, capture_output=True)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PROCTORWIRE_TOKEN_SECRET": new_secret(),
        "PROCTORWIRE_PORT": "0",
        "PROCTORWIRE_DATA_DIR": str(tmp_path),
        "PROCTORWIRE_TLS_CERTIFICATE": str(tmp_path / "cert.pem"),
        "PROCTORWIRE_TLS_KEY": str(tmp_path / "key.pem"),
        "PROCTORWIRE_DIE_WITH_PARENT": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "adapters.ec2_cluster"], env=environment, stdout=subprocess.PIPE
    ) as server:
        try:
            ready = json.loads(server.stdout.readline())
            assert ready["url"].startswith("wss://")
            trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
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
