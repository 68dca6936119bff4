"""Execution environments: processes, one invocation at a time, started on demand and reused."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from toy_gateway import alive, ask, function, say, until

from adapters.lambda_apigw.local.settings import Faults, Limits


async def test_a_warm_environment_is_reused(toy):
    """Source: "Understanding the Lambda execution environment lifecycle": module state survives between invocations."""
    local = await toy()
    async with local.connect() as socket:
        first = await ask(socket)
        await local.idle()
        second = await ask(socket)
        await local.idle()
    assert (first["counter"], second["counter"]) == (1, 2)
    assert first["pid"] == second["pid"] != os.getpid()
    usage = local.usage("message")
    assert (usage.invocations, usage.cold_starts, usage.environments_now) == (2, 1, 1)
    assert 0 < usage.init_cpu_ms <= usage.init_ms * 1.5 + 10
    assert usage.init_ms < usage.boot_ms
    assert usage.cold_wait_ms > 0
    assert 5 < usage.max_memory_mb < 40


async def test_at_the_cap_invocations_wait(toy):
    """Ours, not AWS's: a cap of processes, the wait measured apart from the cold start."""
    local = await toy(functions={"message": function("message", concurrency=1)})
    async with local.connect() as socket:
        await ask(socket)
        await local.idle()
        await socket.send(say(sleep=0.2))
        second = await ask(socket)
        third = json.loads(await socket.recv())
    assert second["pid"] == third["pid"]
    usage = local.usage("message")
    assert (usage.queued, usage.environments_started) == (1, 1)
    assert usage.queue_ms > 150
    assert usage.throttles == 0


async def test_throttling_at_the_cap(toy):
    """Source: "Lambda function scaling": without concurrency left the invocation is refused; the client sees an error frame."""
    local = await toy(functions={"message": function("message", concurrency=1, throttle_at_cap=True)})
    async with local.connect() as socket:
        await socket.send(say(sleep=0.2))
        assert (await ask(socket))["message"] == "Internal server error"
        assert "event" in json.loads(await socket.recv())
    assert local.usage("message").throttles == 1


async def test_a_timeout_kills_the_environment_and_the_next_one_is_new(toy):
    """Source: "Understanding the Lambda execution environment lifecycle": a timeout resets the environment."""
    local = await toy(functions={"message": function("message", timeout_seconds=0.3)})
    async with local.connect() as socket:
        first = await ask(socket)
        await local.idle()
        await ask(socket, sleep=5)
        second = await ask(socket)
    assert second["pid"] != first["pid"]
    assert second["counter"] == 1
    usage = local.usage("message")
    assert (usage.timeouts, usage.cold_starts, usage.environments_killed) == (1, 2, 1)
    assert usage.wall_ms_quantiles["max"] >= 300
    await until(lambda: not alive(first["pid"]))


async def test_an_exception_keeps_the_environment(toy):
    """Source: "Python handler exceptions": the runtime reports the error and serves the next event."""
    local = await toy()
    async with local.connect() as socket:
        first = await ask(socket)
        await local.idle()
        await ask(socket, **{"raise": "bug"})
        second = await ask(socket)
        await until(lambda: "RuntimeError: bug" in local.gateway.log_lines("message"))
    assert second["pid"] == first["pid"]
    assert local.usage("message").errors == 1


async def test_a_killed_environment_fails_what_it_ran_and_is_replaced(toy):
    """A fault to inject; on AWS a host can fail like this."""
    local = await toy()
    async with local.connect() as socket:
        first = await ask(socket)
        await local.idle()
        await socket.send(say(sleep=5))
        await until(lambda: local.usage("message").invocations == 2)
        assert local.gateway.kill_environment("message")
        assert json.loads(await socket.recv())["message"] == "Internal server error"
        second = await ask(socket)
    assert second["pid"] != first["pid"]
    assert local.usage("message").environments_killed == 1


async def test_idle_environments_end(toy):
    """The same page: "Lambda terminates execution environments" that are idle; AWS publishes no time."""
    local = await toy(functions={"message": function("message", idle_seconds=0.2)})
    async with local.connect() as socket:
        pid = (await ask(socket))["pid"]
        await until(lambda: local.usage("message").environments_now == 0)
        await until(lambda: not alive(pid))
        assert (await ask(socket))["counter"] == 1
    assert local.usage("message").environments_killed == 0


@pytest.mark.parametrize("handler", ["nothing_here:handler", "toy_handlers:no_such_handler"])
async def test_a_handler_that_cannot_be_loaded_fails_each_invocation(toy, handler):
    """Source: "Runtime.ImportModuleError" and "Runtime.HandlerNotFound" on AWS; here the log says which."""
    good = function("message")
    broken = type(good)(handler=handler, task_root=good.task_root)
    local = await toy(functions={"message": broken})
    async with local.connect() as socket:
        assert (await ask(socket))["message"] == "Internal server error"
        assert (await ask(socket))["message"] == "Internal server error"
        await until(lambda: any("Error" in line for line in local.gateway.log_lines("message")))
    usage = local.usage("message")
    assert (usage.environments_started, usage.errors, usage.invocations) == (2, 2, 0)


async def test_the_context_object(toy):
    """Source: "Using the Lambda context object to retrieve Python function information"."""
    local = await toy(functions={"message": function("message", memory_mb=192, timeout_seconds=9)})
    async with local.connect() as socket:
        context = (await ask(socket))["context"]
    assert context["function_name"] == "message"
    assert context["memory_limit_in_mb"] == "192"
    assert context["invoked_function_arn"] == "arn:aws:lambda:ap-southeast-1:000000000000:function:message"
    assert len(context["aws_request_id"]) == 36
    assert 5000 < context["remaining"] <= 9000


async def test_functions_see_their_own_variables_only(toy, monkeypatch):
    """Source: "Defined runtime environment variables"; the gateway's own environment must not leak into a function."""
    monkeypatch.setenv("PROCTORWIRE_TEST_SECRET", "leak")
    variables = {"TABLE": "t", "MANAGEMENT_URL": "{management_url}"}
    local = await toy(functions={"message": function("message", env=variables)})
    async with local.connect() as socket:
        environ = (await ask(socket))["environ"]
    assert "PROCTORWIRE_TEST_SECRET" not in environ
    assert environ["TABLE"] == "t"
    assert environ["MANAGEMENT_URL"] == local.gateway.management_url
    assert environ["AWS_REGION"] == "ap-southeast-1"
    assert environ["AWS_ACCESS_KEY_ID"] == "AKIDLOCAL"
    assert environ["AWS_LAMBDA_FUNCTION_NAME"] == "message"
    assert environ["TZ"] == ":UTC"


async def test_output_is_a_log(toy, tmp_path):
    """Source: "Sending Lambda function logs to CloudWatch Logs": both streams, and START, END and REPORT for an invocation."""
    log_file = tmp_path / "message.log"
    local = await toy(functions={"message": function("message", log_file=str(log_file))})
    async with local.connect() as socket:
        await ask(socket, print="first line\nsecond line")
        await local.idle()
        await until(lambda: "second line" in local.gateway.log_lines("message"))
    text = log_file.read_text()
    assert {"START", "END", "REPORT", "first", "second"} == {line.split(" ")[0] for line in text.splitlines()}
    assert "Init Duration: " in text
    usage = local.usage("message")
    assert usage.log_bytes == len("first line\nsecond line\n")
    assert usage.log_bytes + usage.platform_log_bytes == len(text)


async def test_cpu_time_is_the_handlers(toy):
    """Billed time is modelled from it."""
    local = await toy()
    async with local.connect() as socket:
        await ask(socket, sleep=0.2)
        await local.idle()
        asleep = local.usage("message").cpu_ms
        await ask(socket, burn=0.2)
        await local.idle()
    usage = local.usage("message")
    assert asleep < 100
    assert 200 <= usage.cpu_ms - asleep < 300
    assert usage.wall_ms >= 400


async def test_large_events_and_answers_pass_whole(toy):
    """Source: "Lambda quotas": 6 MB each way; a message is at most 128 KB."""
    local = await toy(
        functions={"reply": function("reply")}, routes={"$default": "reply"}, route_responses=("$default",)
    )
    text = "ü" * 50_000
    async with local.connect() as socket:
        await socket.send(text[i : i + 10_000] for i in range(0, len(text), 10_000))
        assert json.loads(await socket.recv()) == {"reply": text}


async def test_nothing_is_left_running(toy):
    """Neither environments nor what they started."""
    local = await toy()
    async with local.connect() as socket:
        spawned = (await ask(socket, spawn=1))["spawned"]
        await local.idle()
        (pid,) = local.gateway.environment_pids["message"]
        await socket.send(say(sleep=5))
        await until(lambda: local.usage("message").invocations == 2)
        started = time.monotonic()
        await local.gateway.stop()
        assert time.monotonic() - started < 2
    assert not alive(pid)
    await until(lambda: not alive(spawned))


async def test_killed_invocations_are_a_fault_that_can_be_set(toy):
    """Nothing hangs: each message is answered, if only by an error frame."""
    local = await toy(faults=Faults(invocation_killed=0.5, killed_within_ms=5))
    async with local.connect() as socket:
        answers = []
        for _ in range(12):
            answers.append(await ask(socket, sleep=0.01))
            await local.idle()
    failed = sum("message" in answer for answer in answers)
    assert 0 < failed < 12
    assert local.usage("message").environments_killed == failed


async def test_many_messages_at_once(toy):
    """No answer is lost or given to another when environments are few."""
    local = await toy(
        functions={"reply": function("reply", concurrency=3)},
        routes={"$default": "reply"},
        route_responses=("$default",),
    )

    async def talk(name):
        async with local.connect() as socket:
            for i in range(50):
                await socket.send(f"{name}-{i}")
            return {json.loads(await socket.recv())["reply"] for _ in range(50)}

    for name, replies in enumerate(await asyncio.gather(*(talk(name) for name in range(6)))):
        assert replies == {f"{name}-{i}" for i in range(50)}
    usage = local.usage("reply")
    assert usage.invocations == 300
    assert usage.environments_started == 3


async def test_the_accounts_concurrency_is_shared_by_its_functions(toy):
    """Source: "Lambda quotas": concurrent executions of an account, over all its functions."""
    local = await toy(
        functions={"a": function("message"), "b": function("message")},
        routes={"a": "a", "b": "b"},
        limits=Limits(account_concurrency=1),
    )
    async with local.connect() as socket:
        await socket.send('{"action": "a", "data": {"sleep": 0.4}}')
        await socket.send('{"action": "b", "data": {}}')
        assert json.loads(await socket.recv())["message"] == "Internal server error"
        assert "event" in json.loads(await socket.recv())
        await local.idle("a")
        await socket.send('{"action": "b", "data": {}}')
        assert "event" in json.loads(await socket.recv())
    assert local.usage("b").throttles == 1


async def test_a_function_starts_only_so_many_environments_in_ten_seconds(toy):
    """Source: "Lambda function scaling": 1,000 environments every ten seconds, for each function."""
    local = await toy(limits=Limits(environments_per_ten_seconds=1))
    async with local.connect() as socket:
        await socket.send(say(sleep=0.4))
        assert (await ask(socket))["message"] == "Internal server error"
        assert "event" in json.loads(await socket.recv())
    assert local.usage("message").environments_started == 1


async def test_a_frozen_environment_does_nothing_between_invocations(toy):
    """Source: "Understanding the Lambda execution environment lifecycle": background work goes on in the next invocation."""
    local = await toy(functions={"message": function("message", freeze=True)})
    async with local.connect() as socket:
        child = (await ask(socket, spawn=True))["spawned"]
        # Both are told at once; each stops when the kernel runs it next, in either order.
        await until(lambda: stopped(child) and stopped(local.gateway.environment_pids["message"][0]))
        await socket.send(say(sleep=0.3))
        await until(lambda: not stopped(child))
        assert "event" in json.loads(await socket.recv())
        await until(lambda: stopped(child))
    await local.gateway.stop()
    await until(lambda: not alive(child))


def stopped(pid):
    """Whether a process is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


async def test_messages_are_delayed_and_overtaken_as_a_fault(toy):
    local = await toy(faults=Faults(message_delayed=0.5, delayed_within_ms=300))
    async with local.connect() as socket:
        for number in range(12):
            await socket.send(say(number=number))
        order = [json.loads(json.loads(await socket.recv())["event"]["body"])["data"]["number"] for _ in range(12)]
    assert sorted(order) == list(range(12))
    assert order != list(range(12))
