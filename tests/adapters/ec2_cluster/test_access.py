"""Who gets in, who has to go, and how much anybody may send: over real sockets, on two instances."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import itertools
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import certificates
import jwt
import pytest
import redis
import websockets
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from deployments import ClusterDeployment
from wire_clients import Dashboard, Page

from adapters.ec2_cluster import access, admin_server
from adapters.ec2_cluster.config import ClusterSettings
from adapters.ec2_cluster.handshake import Accepted, Handshake, Refused
from adapters.ec2_cluster.keys import REVOKED
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.worker import Worker
from compare.proctorwire import main

_numbers = itertools.count(1)
LMS_KEY = ec.generate_private_key(ec.SECP256R1())
ADMIN_TOKEN = "a" * 40
SECRETS = {"old": "o" * 32, "new": "n" * 32}


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Its first instance takes two secrets from a file, and an LMS's public key."""
    folder = tmp_path_factory.mktemp("keys")
    key = {**jwt.algorithms.ECAlgorithm.to_jwk(LMS_KEY.public_key(), as_dict=True), "kid": "lms"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
    (folder / "secrets").write_text("".join(f"{kid}:{secret}\n" for kid, secret in SECRETS.items()))
    first = {
        "PROCTORWIRE_TOKEN_SECRET": "",
        "PROCTORWIRE_TOKEN_SECRET_FILE": str(folder / "secrets"),
        "PROCTORWIRE_JWKS": str(folder / "jwks.json"),
    }
    admin = {"PROCTORWIRE_ADMIN_PORT": "0", "PROCTORWIRE_ADMIN_TOKEN": ADMIN_TOKEN}
    async with LocalCluster(instances=2, workers=2, environments=[first, admin]) as running:
        yield running


class Mixed(ClusterDeployment):
    """Everybody is on the second instance, whose secret the cluster knows."""

    def url(self, instance: int = 1) -> str:
        return super().url(instance)


@pytest.fixture
async def exam(cluster: LocalCluster) -> AsyncIterator[Mixed]:
    deployment = Mixed(cluster, f"access-{next(_numbers)}")
    yield deployment
    for client in deployment.clients:
        await client.close()


async def admin(cluster: LocalCluster, *arguments: str) -> Result:
    done = await asyncio.to_thread(
        CliRunner().invoke, main, ["admin", "--redis", cluster.redis_url, *arguments], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done


async def refused(page: Page | Dashboard) -> int:
    with pytest.raises(websockets.InvalidStatus) as answer:
        await page.connect()
    return answer.value.response.status_code


async def test_a_revoked_student_is_out_and_stays_out_until_it_is_taken_back(
    cluster: LocalCluster, exam: Mixed
) -> None:
    page, other = await exam.page("s1"), await exam.page("s2")
    await page.reported()
    await other.reported()
    revoked = ("--school", exam.school, "--quiz", exam.quiz_id, "--student", "s1")
    with redis.Redis.from_url(cluster.redis_url) as client:  # a later release's: it must not hide ours
        client.hset(REVOKED, '["north","student","","",7]', "4000000000")
    await admin(cluster, "revoke", *revoked)
    assert (await page.frame("error", code="token_invalid"))["final"]
    assert await page.closed() == 4001
    assert await refused(page) == 401
    await other.reported()
    assert "student s1" in (await admin(cluster, "revocations")).output
    await admin(cluster, "revoke", *revoked, "--undo")
    assert "s1" not in (await admin(cluster, "revocations")).output
    await page.until_let_in()
    await page.reported()


async def test_an_lms_revokes_over_http(cluster: LocalCluster, exam: Mixed) -> None:
    url = f"{cluster.ready[1].admin_url}/revocations"

    async def ask(method: str, body: object = None, token: str = ADMIN_TOKEN) -> tuple[int, str]:
        def send() -> tuple[int, str]:
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                url, data=data, method=method, headers={"Authorization": f"Bearer {token}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(send)

    page = await exam.page("s1")
    await page.reported()
    whose = {"school": exam.school, "quiz_id": exam.quiz_id, "subject": "s1"}
    assert (await ask("POST", whose, "b" * 40))[0] == 401
    for wrong, named in (({**whose, "hours": -1}, "hours"), ({**whose, "who": "s1"}, "who"), ({}, "school")):
        status, text = await ask("POST", wrong)
        assert status == 400
        assert named in text
    assert (await ask("POST", {**whose, "hours": 1}))[0] == 200
    assert await page.closed() == 4001
    assert await refused(page) == 401
    status, text = await ask("GET")
    assert status == 200
    assert exam.quiz_id in text
    assert (await ask("DELETE", whose))[0] == 200
    assert (await ask("DELETE", whose))[0] == 404


def test_an_error_of_ours_on_the_admin_port_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(admin_server.Revoking):
        def answer(self, method: str, authorization: str, body: bytes) -> bytes:
            raise LookupError("hunter2")

    class Asked(admin_server._Handler):
        revoking = Broken("redis://127.0.0.1:1", ADMIN_TOKEN)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            with pytest.raises(urllib.error.HTTPError, match="500") as raised:
                urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/revocations", timeout=10)
            with raised.value as answer:
                assert answer.read() == b"Internal Server Error: see the log\n"
        finally:
            server.shutdown()
            serving.join()
    assert "hunter2" in caplog.text


async def test_an_exam_revoked_is_revoked_for_its_students_alone(cluster: LocalCluster, exam: Mixed) -> None:
    page, proctor = await exam.page("s1"), await exam.dashboard()
    await page.reported()
    await proctor.sees("s1", label="active")
    await admin(cluster, "revoke", "--school", exam.school, "--quiz", exam.quiz_id)
    assert await page.closed() == 4001
    await proctor.sees("s1", label="reconnecting")
    elsewhere = Mixed(cluster, exam.quiz_id)
    elsewhere.school = "south"
    namesake = await elsewhere.page("s1")
    exam.clients.append(namesake)
    await namesake.reported()


async def test_a_refresh_with_a_revoked_token_is_refused(cluster: LocalCluster, exam: Mixed) -> None:
    proctor = await exam.dashboard("p1")
    await admin(cluster, "revoke", "--school", exam.school, "--quiz", exam.quiz_id, "--proctor", "p1")
    assert await proctor.closed() == 4001
    assert await refused(proctor) == 401


async def test_a_kicked_student_may_come_back(cluster: LocalCluster, exam: Mixed) -> None:
    page = await exam.page("s1")
    await page.reported()
    done = await admin(cluster, "kick", "--school", exam.school, "--quiz", exam.quiz_id, "--student", "s1")
    assert "1 connections closed" in done.output
    assert await page.closed() == 4201
    await page.connect()
    await page.reported()


async def test_exams_and_workers_are_listed(cluster: LocalCluster, exam: Mixed) -> None:
    page = await exam.page("s1")
    await page.reported("away")
    listed = json.loads((await admin(cluster, "exams", "--json")).output)
    assert {e["quiz_id"]: e["labels"] for e in listed if e["school"] == exam.school}[exam.quiz_id] == {"away": 1}
    workers = json.loads((await admin(cluster, "workers", "--json")).output)
    assert len(workers) == 4
    assert {one["state"]["port"] for one in workers} == {ready.port for ready in cluster.ready}
    assert exam.quiz_id in (await admin(cluster, "exams", "--school", exam.school)).output
    assert (await admin(cluster, "exams", "--school", "nowhere")).output == "no exam is open\n"
    assert "proctors" in (await admin(cluster, "workers")).output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["admin", "exams"], "no Redis"),
        (["admin", "--redis", "redis://127.0.0.1:1", "exams"], "redis"),
        (["admin", "--redis", "nonsense", "exams"], "redis_url"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code != 0
    assert complaint in done.output


def test_what_is_not_there_is_said(cluster: LocalCluster) -> None:
    for arguments in (
        ("kick", "--school", "x", "--quiz", "y", "--student", "z"),
        ("drain", "nowhere:1"),
        ("revoke", "--school", "x", "--undo"),
        ("revoke", "--school", "x", "--student", "a", "--proctor", "b"),
    ):
        done = CliRunner().invoke(main, ["admin", "--redis", cluster.redis_url, *arguments])
        assert done.exit_code in (1, 2), done.output


async def test_schools_never_see_each_other(cluster: LocalCluster, exam: Mixed) -> None:
    """Two schools with the same exam, the same student and the same proctor."""
    other = Mixed(cluster, exam.quiz_id)
    other.school = "south"
    ours, theirs = await exam.dashboard("p"), await other.dashboard("p")
    exam.clients += other.clients
    page, namesake = await exam.page("s1"), await other.page("s1")
    exam.clients.append(namesake)
    await page.reported("active", question_answered=1)
    await namesake.reported("away", question_answered=2)
    await ours.sees("s1", label="active", question_answered=1)
    await theirs.sees("s1", label="away", question_answered=2)
    await page.reported("active", question_answered=5)
    await ours.sees("s1", question_answered=5)
    await ours.order("pause", "c1", everyone=True)
    await page.frame("lmsQuizCommand", command="pause")
    await namesake.send("lmsQuizStudentMessage", message_id="m1", kind="chat", text="to south alone")
    await theirs.frame("lmsQuizMonitoringMessage", message_id="m1")
    assert [view["question_answered"] for view in theirs.shown.values()] == [2]
    assert namesake.count("lmsQuizCommand") == 0
    assert ours.count("lmsQuizMonitoringMessage") == 0


async def test_keys_are_changed_without_an_interruption(cluster: LocalCluster, exam: Mixed) -> None:
    claims = {
        "sub": "s1",
        "role": "student",
        "school": exam.school,
        "quiz_id": exam.quiz_id,
        "quiz_attempt_id": "attempt-s1",
        "exp": 4_000_000_000,
    }
    for kid, key, algorithm in (
        ("old", SECRETS["old"], "HS256"),
        ("new", SECRETS["new"], "HS256"),
        ("lms", LMS_KEY, "ES256"),
    ):
        page = Page(exam, "s1", tab_id=kid)
        exam.clients.append(page)
        page.url = exam.url(0)
        page.token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})
        await page.connect()
        await page.reported()
        page.token = jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": kid})
        assert await refused(page) == 401


async def test_while_the_keys_of_an_lms_could_not_be_read_nobody_is_told_that_a_token_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 401 would be final: its service may be away for the moment in which an instance starts."""
    monkeypatch.setattr(access, "_JWKS_AGAIN_SECONDS", 0.01)
    key = {**jwt.algorithms.ECAlgorithm.to_jwk(LMS_KEY.public_key(), as_dict=True), "kid": "lms"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key]}))
    claims = {"sub": "p1", "role": "proctor", "school": "north", "quiz_id": "q", "exp": 4_000_000_000}
    token = jwt.encode(claims, LMS_KEY, algorithm="ES256", headers={"kid": "lms"})

    def handshake(token: str) -> Handshake:
        return Handshake("/ws", {"token": token}, {}, (), None, "127.0.0.1", secure=True, key="")

    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as lms:
        jwks = f"http://127.0.0.1:{lms.server_port}/jwks.json"
        worker = Worker("w", ClusterSettings(token_secrets={}, jwks=jwks, redis_url="redis://127.0.0.1:1"))
        worker.ready = True
        (tmp_path / "jwks.json").rename(tmp_path / "away")
        serving = threading.Thread(target=lms.serve_forever)
        serving.start()
        try:
            await worker.keys.refresh()
            answer = worker.admit(handshake(token))
            assert isinstance(answer, Refused)
            assert (answer.status, answer.retry_after) == (503, 5)
            reading = asyncio.ensure_future(worker.keys.until_complete())
            (tmp_path / "away").rename(tmp_path / "jwks.json")
            await reading
        finally:
            await asyncio.to_thread(lms.shutdown)
            serving.join()
    assert isinstance(worker.admit(handshake(token)), Accepted)
    answer = worker.admit(handshake(token[:-4] + "AAAA"))
    assert isinstance(answer, Refused)
    assert answer.status == 401


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """A test's output is for what failed."""


async def test_a_flood_is_cut_off_and_a_burst_is_not(exam: Mixed) -> None:
    page = await exam.page("s1")
    for number in range(50):
        await page.report(question_answered=number)
    await page.frame("ack", seq=50)
    assert page.count("error") == 0
    flood = await exam.page("s2")
    with contextlib.suppress(websockets.ConnectionClosed):
        while flood.close_code is None:
            await flood.report(question_answered=1)
            await asyncio.sleep(0)  # let the page read, too
    assert await flood.closed() == 4101
    assert flood.count("error", code="rate") == 1
    await page.reported()


async def test_pings_count_as_messages_do(exam: Mixed) -> None:
    page = await exam.page("s1")
    socket = page._socket
    assert socket is not None
    with contextlib.suppress(websockets.ConnectionClosed):
        for _ in range(500):
            await socket.ping()
            await asyncio.sleep(0)
    assert await page.closed() == 4101
    assert page.count("error", code="rate") == 1


async def test_an_instance_drains_when_it_is_told_to() -> None:
    async with LocalCluster(instances=2, workers=1, drain_seconds=0.5) as cluster:
        exam = Mixed(cluster, "drained")
        page = Page(exam, "s1")
        page.url = exam.url(0)
        await page.connect()
        await page.reported()
        workers = json.loads((await admin(cluster, "workers", "--json")).output)
        name = next(one["state"]["instance"] for one in workers)
        await admin(cluster, "drain", f"{name}:{cluster.ready[0].port}")
        await page.frame("reconnect", reason="drain")
        assert await page.closed() == 4200
        page.url = exam.url(1)
        await page.connect()
        await page.reported()
        await page.close()


async def test_an_exam_over_tls_from_end_to_end(tmp_path: Path) -> None:
    certificate = certificates.for_localhost(tmp_path)
    secure = {
        "PROCTORWIRE_TLS_CERTIFICATE": str(certificate.chain),
        "PROCTORWIRE_TLS_KEY": str(certificate.key),
    }
    trusting = ssl.create_default_context(cafile=str(certificate.authority))
    async with LocalCluster(instances=1, workers=2, environments=[secure]) as cluster:
        exam = ClusterDeployment(cluster, "tls")
        page, proctor = Page(exam, "s1"), Dashboard(exam)
        for client in (page, proctor):
            client.url = client.url.replace("127.0.0.1", "localhost")
            client.ssl = trusting
            await client.connect()
        await proctor.watch()
        await page.reported("active", question_answered=3)
        await proctor.sees("s1", label="active", question_answered=3)
        await page.close(4000)
        await proctor.sees("s1", label="offline")
        await proctor.close()
