"""Targets: what they say of what was used, how they refuse, and that a tiny exam passes through each of the local ones."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest
from reference_server import SECRET, ReferenceServer

from adapters.lambda_apigw.local.exam_stack import FunctionMeter, StackUsage
from adapters.lambda_apigw.local.usage import FunctionUsage, QueueUsage
from adapters.lambda_apigw.local.usage import Usage as GatewayUsage
from compare.bill.cost import ExamPlan
from compare.bill.prices import load_prices
from compare.bill.usage import ClusterUsage, ServerlessUsage, ServiceCalls
from compare.run.comparison import Silence, run_mode
from compare.run.meter import ProcessMeter, children, cpu_seconds, memory_bytes
from compare.run.recording import Traffic
from compare.run.target import (
    ClusterTarget,
    Load,
    RemoteTarget,
    ServerlessTarget,
    Target,
    TargetError,
    serverless_usage,
)
from compare.run.workload import Plan, schedule

LOAD = Load(30.0, 100, 4, 52.0, Traffic(frames_in=700, units_in=700, bytes_in=90_000, reports=250, connects=110))


def filled(kind: type[msgspec.Struct], **values: object) -> dict[str, object]:
    """Values for all fields of a struct: the given ones, else nothing of its type."""
    return {
        field.name: values.get(field.name, {} if "dict" in str(field.type) else 0)
        for field in msgspec.structs.fields(kind)
    }


def test_what_the_serverless_side_used_is_told_in_the_words_of_a_bill() -> None:
    message = FunctionUsage(
        **filled(FunctionUsage, memory_mb=256, invocations=700, cpu_ms=900.0, wall_ms=4000.0, environments_started=3)
    )
    idle = FunctionUsage(**filled(FunctionUsage, memory_mb=256))
    queue = QueueUsage(**filled(QueueUsage, receive_requests=5, delete_requests=2))
    gateway = GatewayUsage(
        **filled(
            GatewayUsage,
            messages_in_units=701,
            messages_out_units=650,
            connection_minutes=51.0,
            connects=111,
            disconnects=9,
            bytes_out=300_000,
            functions={"message": message, "minute": idle},
            queues={"sweep": queue},
        )
    )
    meters = {
        "message": FunctionMeter({"dynamodb_read": 700, "dynamodb_write": 680, "sqs": 4}, 720.0, 1400.0, 50),
        "minute": FunctionMeter({}, 0.0, 0.0, 0),
    }
    used = serverless_usage(StackUsage(gateway, meters), LOAD)
    assert (used.messages_in, used.messages_out, used.connects, used.disconnects) == (701, 650, 111, 9)
    assert (used.dynamodb_read_units, used.dynamodb_write_units, used.sqs_requests) == (720.0, 1400.0, 11)
    assert (used.duration_seconds, used.students, used.proctors, used.reports) == (30.0, 100, 4, 250)
    assert list(used.functions) == ["message"]  # a function that never ran is on no bill
    function = used.functions["message"]
    assert (function.trigger, function.invocations, function.handler_cpu_ms, function.cold_starts) == (
        "message",
        700,
        900.0,
        3,
    )
    assert function.calls == ServiceCalls(dynamodb_read=700, dynamodb_write=680, sqs=4)


@pytest.mark.parametrize("name", ["lambda", "ec2"])
async def test_of_a_remote_deployment_only_what_the_clients_saw_is_known(name: str) -> None:
    used = await RemoteTarget(name, "wss://exam.example/ws", SECRET).usage(LOAD)
    assert isinstance(used, ServerlessUsage if name == "lambda" else ClusterUsage)
    assert used.reports == 250
    if isinstance(used, ServerlessUsage):
        assert (used.messages_in, used.functions) == (700, {})
    else:
        assert (used.ingress_bytes, used.cpu_seconds.total) == (90_000, 0.0)


@pytest.fixture
async def server() -> AsyncIterator[ReferenceServer]:
    it = ReferenceServer()
    await it.start()
    yield it
    await it.stop()


async def test_a_remote_deployment_that_takes_our_token_is_ready(server: ReferenceServer) -> None:
    target = RemoteTarget("ec2", server.urls[0], SECRET)
    await target.start()
    assert target.where == "127.0.0.1"
    assert await target.journal(None) == []
    with pytest.raises(TargetError, match="local deployments only"):
        await target.inject("kill_process")


async def test_a_remote_deployment_that_refuses_our_token_points_to_the_secret(server: ReferenceServer) -> None:
    with pytest.raises(TargetError) as refused:
        await RemoteTarget("ec2", server.urls[0], "a secret of somebody else and also long").start()
    assert refused.value.option == "--token-secret"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered with status 404"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "is no WebSocket server"),
    ],
)
async def test_an_address_that_is_no_deployment_is_named(answer: bytes, says: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as something:
        port = something.sockets[0].getsockname()[1]
        with pytest.raises(TargetError) as refused:
            await RemoteTarget("lambda", f"ws://127.0.0.1:{port}/", SECRET).start()
    assert refused.value.option == "--lambda-url"
    assert says in str(refused.value)


@pytest.mark.parametrize("make", [ClusterTarget, ServerlessTarget])
async def test_a_tiny_exam_passes_through_each_local_deployment(make: type[Target]) -> None:
    target = make(SECRET)
    # eight, so that a second's work is more than the hundredth of a second in which it is counted
    exam = schedule(Plan(students=8, exams=1, interval=0.5, duration=2.0))
    before = set(children(os.getpid()))
    run = await run_mode(
        target, exam, "proctorwire", ExamPlan(3.0, 20.0), load_prices("us-east-1"), asyncio.Event(), Silence()
    )
    assert run is not None
    found = run.result
    assert (found.lost, found.duplicates, found.false_offline) == (0, 0, 0), found.problems
    assert found.sent == found.delivered > 0
    assert found.cpu.total_s > 0
    assert found.memory.total_bytes > 10e6
    if target.name == "ec2":
        assert found.cpu.cores.count >= 1  # a look each second
        assert 0 < found.cpu.cores.max < 8
        assert 10e6 < found.memory.each_second.p50 <= found.memory.total_bytes
    assert found.usage.journal_entries >= 4  # the attempt, the first label, the warning, its receipts
    assert found.cost is not None
    assert found.cost.month.usd > 0
    assert found.latency_ms.basis == ("measured" if target.name == "ec2" else "emulated")
    assert set(children(os.getpid())) <= before


async def test_time_and_memory_of_processes_are_kept_when_they_end() -> None:
    busy = "import sys; sys.stdin.readline(); [i for i in range(3_000_000)]; print('done', flush=True); sys.stdin.readline()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", busy), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    alive = {"worker": [process.pid], "gone": [2**22 + 1]}
    meter = ProcessMeter(lambda: alive)
    meter.start()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    await process.stdout.readline()
    meter.sample()
    used = meter.cpu_seconds()["worker"]
    assert 0 < used < 5
    assert meter.highest_memory["worker"] > 1e6
    process.stdin.write(b"\n")
    await process.wait()
    alive["worker"] = []
    meter.sample()
    meter.stop()
    assert used <= meter.cpu_seconds()["worker"] < used + 1  # it may have been looked at once more while it ended
    assert meter.highest_memory["worker"] > 1e6


def test_our_own_process_can_be_read() -> None:
    assert cpu_seconds(os.getpid()) > 0
    assert memory_bytes(os.getpid()) > 1e6
    assert children(2**22 + 1) == []
