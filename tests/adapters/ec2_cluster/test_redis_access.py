"""A Redis that takes TLS only, and a user who may do no more than the cluster needs: an exam runs, and so does `admin`."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
import redis
from click.testing import CliRunner
from deployments import ClusterDeployment
from wire_clients import Dashboard, Page

from adapters.ec2_cluster.embedded import find_redis_server
from adapters.ec2_cluster.local import LocalCluster
from compare.proctorwire import main

PASSWORD = "only-for-this-test"
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def documented_rules() -> list[str]:
    """The access list that the operations manual tells to use."""
    found = re.search(r"^user proctorwire (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert found
    return found[1].replace(">SECRET", ">" + PASSWORD).split()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[str]:
    certificate = certificates.for_localhost(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": str(certificate.chain),
        "tls-key-file": str(certificate.key),
        "tls-ca-cert-file": str(certificate.authority),
        "tls-auth-clients": "no",
        "save": "",
        "dir": str(tmp_path),
        "bind": "127.0.0.1",
        "requirepass": "of the administrator",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    with subprocess.Popen([find_redis_server(), *arguments], stdout=subprocess.DEVNULL) as server:
        try:
            root = f"rediss://:of%20the%20administrator@localhost:{port}?ssl_ca_certs={certificate.authority}"
            with redis.Redis.from_url(root) as client:
                deadline = time.monotonic() + 20
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        assert time.monotonic() < deadline, "no Redis"
                        time.sleep(0.02)
                client.execute_command("ACL", "SETUSER", "proctorwire", *documented_rules())
                client.config_set("appendonly", "no")
                yield f"rediss://proctorwire:{PASSWORD}@localhost:{port}?ssl_ca_certs={certificate.authority}"
                denied = [entry for entry in client.acl_log() if entry["username"] == "proctorwire"]
                assert denied == []
        finally:
            server.terminate()
            server.wait(20)


async def test_an_exam_over_tls_as_a_user_who_may_do_little(secured: str) -> None:
    async with LocalCluster(instances=2, workers=1, redis_url=secured) as cluster:
        exam = ClusterDeployment(cluster, "secured")
        page, proctor = Page(exam, "s1"), Dashboard(exam, instance=1)
        await page.connect()
        await proctor.connect()
        await proctor.watch()
        await page.reported(question_answered=1)
        await proctor.sees("s1", question_answered=1)
        await proctor.order("warn", "c1", student_ids=["s1"], text="look up")
        await page.frame("lmsQuizCommand", command_id="c1")
        await proctor.order("pause", "c2", everyone=True)
        await proctor.sees("s1", label="paused")
        await exam.until_journalled("label", 2)
        for arguments in (
            ("workers",),
            ("exams",),
            ("revoke", "--school", "north", "--quiz", "secured"),
            ("revocations",),
        ):
            done = CliRunner().invoke(main, ["admin", "--redis", secured, *arguments])
            assert done.exit_code == 0, done.output
        assert await page.closed() == 4001
        await page.close()
        await proctor.close()


async def test_who_is_not_trusted_is_told_in_one_line(secured: str) -> None:
    done = CliRunner().invoke(
        main,
        ["serve", "--redis", secured.partition("?")[0], "--token-secret", "s" * 32, "--port", "0"],
    )
    assert done.exit_code == 2
    assert PASSWORD not in done.output
    assert "redis_url" in done.output
