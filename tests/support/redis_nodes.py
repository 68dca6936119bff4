"""Real nodes of a Redis Cluster (or Valkey's) on this machine: three primaries with a third of the slots each, and replicas."""

from __future__ import annotations

import itertools
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from certificates import Certificate
from redis.backoff import ConstantBackoff
from redis.crc import key_slot
from redis.retry import Retry

from adapters.ec2_cluster.embedded import find_redis_server

PRIMARIES = 3
_SLOTS = 16384
_SECONDS = 20.0


class RedisNodes:
    """A cluster, started and stopped as a context manager. Nodes are numbered; the first three are the primaries at first."""

    def __init__(
        self,
        *,
        replicas_of: tuple[int, ...] = (),
        binary: Path | None = None,
        certificate: Certificate | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`replicas_of`: one replica for each of these primaries. With a `certificate` they take TLS only."""
        self._folder = tempfile.TemporaryDirectory(prefix="pw-nodes-")
        self._binary = binary or find_redis_server()
        self._options = dict(options or {})
        self._certificate = certificate
        self._connection: dict[str, Any] = {}
        if certificate is not None:
            self._connection = {"ssl": True, "ssl_ca_certs": str(certificate.authority)}
            self._options |= {
                "tls-cluster": "yes",
                "tls-replication": "yes",
                "tls-auth-clients": "no",
                "tls-cert-file": str(certificate.chain),
                "tls-key-file": str(certificate.key),
                "tls-ca-cert-file": str(certificate.authority),
            }
        self._replicas_of = replicas_of
        self._commands: list[list[str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.ids: list[str] = []

    def __enter__(self) -> RedisNodes:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, node: int = 0, user: str = "") -> str:
        """One of the nodes, of which the others are asked for. `user`: `name:password`."""
        who = f"{user}@" if user else ""
        if self._certificate is None:
            return f"redis://{who}127.0.0.1:{self.ports[node]}"
        return f"rediss://{who}127.0.0.1:{self.ports[node]}?ssl_ca_certs={self._certificate.authority}"

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self._folder.cleanup()

    def ask(self, node: int, *command: Any) -> Any:
        """A command to this very node."""
        with redis.Redis(port=self.ports[node], retry=Retry(ConstantBackoff(0.02), 250), **self._connection) as client:
            return client.execute_command(*command)

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes[node].wait()

    def start_empty(self, node: int) -> None:
        """Start a killed node again: it knows its slots, and nothing that was in them."""
        self.processes[node] = subprocess.Popen(self._commands[node], stdout=subprocess.DEVNULL)

    def owner(self, key: str | bytes) -> int:
        """The number of the node that has the slot of a key."""
        return self.owners()[key_slot(key.encode() if isinstance(key, str) else key)]

    def owners(self) -> dict[int, int]:
        """The number of the node that has each slot, as one that lives has it."""
        alive = next(n for n, process in enumerate(self.processes) if process.poll() is None)
        return {
            slot: self.ids.index(primary[2].decode())
            for start, end, primary, *_ in self.ask(alive, "CLUSTER", "SLOTS")
            for slot in range(start, end + 1)
        }

    def migrate(self, key: str | bytes, to: int, while_open: Callable[[], None] = lambda: None) -> int:
        """Move the slot of a key with all that is in it, as redis-cli does; `while_open` is called between two keys."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        source = self.owner(key)
        self.ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[to])
        moved = 0
        while names := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 1):
            self.ask(source, "MIGRATE", "127.0.0.1", self.ports[to], "", 0, 5000, "KEYS", *names)
            moved += len(names)
            while_open()
        for node in (to, source):
            self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[to])
        return moved

    def _start(self) -> None:
        count = PRIMARIES + len(self._replicas_of)
        self.ports = _free_ports(count)
        for number, port in enumerate(self.ports):
            folder = Path(self._folder.name) / str(number)
            folder.mkdir()
            options = {
                "port": str(port if self._certificate is None else 0),
                "tls-port": str(0 if self._certificate is None else port),
                "bind": "127.0.0.1",
                "cluster-enabled": "yes",
                "cluster-node-timeout": "500",
                "cluster-replica-validity-factor": "0",
                "repl-diskless-sync-delay": "0",
                "save": "",
                "dir": str(folder),
                "logfile": str(folder / "log"),
                **self._options,
            }
            words = [word for name, value in options.items() for word in (f"--{name}", value)]
            self._commands.append([str(self._binary), *words])
            self.processes.append(subprocess.Popen(self._commands[-1], stdout=subprocess.DEVNULL))
        self.ids = [self.ask(number, "CLUSTER", "MYID").decode() for number in range(count)]
        bounds = [_SLOTS * n // PRIMARIES for n in range(PRIMARIES + 1)]
        for number, (start, end) in enumerate(itertools.pairwise(bounds)):
            self.ask(number, "CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            self.ask(number, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in self.ports[1:]:
            self.ask(0, "CLUSTER", "MEET", "127.0.0.1", port)
        everybody = range(count)
        until(lambda: all(len(self._known(number)) == count for number in everybody), "nodes that know each other")
        for number, primary in enumerate(self._replicas_of, PRIMARIES):
            self.ask(number, "CLUSTER", "REPLICATE", self.ids[primary])
        until(lambda: all(self._is_well(number) for number in everybody), "whole cluster")

    def _known(self, number: int) -> list[bytes]:
        lines: list[bytes] = [
            line for line in self._raw(number, "CLUSTER", "NODES").splitlines() if b"handshake" not in line
        ]
        return lines

    def _is_well(self, number: int) -> bool:
        if b"cluster_state:ok" not in self._raw(number, "CLUSTER", "INFO"):
            return False
        return number < PRIMARIES or b"master_link_status:up" in self._raw(number, "INFO", "replication")

    def _raw(self, number: int, *command: str) -> bytes:
        """The text of an answer that redis-py would make something of."""
        with redis.Redis(port=self.ports[number], **self._connection) as client:
            client.response_callbacks.clear()
            found: bytes = client.execute_command(*command)
        return found


def until(condition: Callable[[], Any], what: str, seconds: float = _SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        time.sleep(0.02)


def _free_ports(count: int) -> list[int]:
    """Free ports whose cluster bus, 10,000 above, has one too."""
    found: list[int] = []
    while len(found) < count:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
            if port <= 55535 and port not in found:
                found.append(port)
    return found
