"""What one run used: the units that AWS would bill, counted while the run went.

These records hold quantities only. Prices are in `prices`, the arithmetic in `cost`. Each field says its unit and how
it came about, in the four words that every figure of the comparison carries:

measured   counted or timed here, on the code that would run on AWS
emulated   counted or timed here, but against a stand-in for an AWS service
modelled   computed from the above with constants from a published source
assumed    nobody measured it; the number is a stated guess

Both records describe one stretch of time from the start of the servers. A run may keep two of them: one taken at the
end of its *opening* (everybody has joined, and the tab switches, drops and warnings are behind) and one at its end.
What the opening used then counts once an exam, and only what came after it is stretched to the length of an exam.
"""

from typing import Literal

import msgspec

Basis = Literal["measured", "emulated", "modelled", "assumed"]
Mode = Literal["lambda", "ec2"]
Trigger = Literal["connection", "message", "timer"]
Architecture = Literal["arm64", "x86_64"]


class ServiceCalls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls that handlers made while they were billed; counted by the handlers' own clients (measured)."""

    dynamodb_read: int = 0  # GetItem and Query
    dynamodb_write: int = 0  # PutItem, UpdateItem, DeleteItem
    dynamodb_transact: int = 0  # TransactWriteItems
    post_to_connection: int = 0  # PostToConnection and DeleteConnection, those answered 410 too
    sqs: int = 0  # SendMessage


class FunctionUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Lambda function during the run."""

    trigger: Trigger  # connection: authorizer, $connect, $disconnect; message: client frames; timer: the sweep
    memory_mb: int  # the size it is deployed with
    invocations: int  # count, measured
    handler_cpu_ms: float  # CPU time inside the handler, summed, warm and cold, without INIT; measured on this machine
    calls: ServiceCalls = ServiceCalls()
    cold_starts: int = 0  # environments created, emulated
    init_cpu_ms: float = 0.0  # CPU time of imports and client set-up before the first invocation, summed; measured
    handler_wall_ms: float = (
        0.0  # elapsed time inside the handler, summed; emulated, shown beside the modelled time, never billed
    )
    architecture: Architecture = "arm64"


class ServerlessUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="serverless"):
    """API Gateway, Lambda, DynamoDB, SQS and logs."""

    duration_seconds: float  # how long this stretch lasted, measured
    students: int  # students of all exams of the run together
    reports: int  # status reports that the students sent, measured
    messages_in: int  # frames from clients in 32 KiB steps (ceil(bytes / 32768) each), measured
    messages_out: int  # frames to clients in 32 KiB steps, route responses too, measured
    connection_minutes: float  # summed over all sockets, proctors too, not rounded; measured
    connects: int  # accepted connections, proctors and reconnects too; measured
    disconnects: int  # closed connections, measured
    functions: dict[str, FunctionUsage]  # by function name
    dynamodb_read_units: float  # read request units as the store returned them, emulated
    dynamodb_write_units: (
        float  # write request units as the store returned them, refused conditional writes too; emulated
    )
    sqs_requests: int  # send, receive and delete, emulated
    log_bytes: int  # what the handlers wrote to standard output, measured
    egress_bytes: int  # frame bytes to clients, measured; TLS and TCP overhead is not in it
    journal_entries: int = 0  # entries saved for good, measured
    proctors: int = 0  # proctors of all exams together
    platform_log_bytes: int = 0  # Lambda's START, END and REPORT lines, emulated; 0: `cost` assumes their size


class ProcessSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One quantity, split by the kind of process of the cluster."""

    workers: float = 0.0
    redis: float = 0.0
    supervisor: float = 0.0
    journal: float = 0.0

    @property
    def total(self) -> float:
        """The sum over all kinds."""
        return self.workers + self.redis + self.supervisor + self.journal


class ClusterUsage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="cluster"):
    """The WebSocket cluster: processes on instances, and what leaves them."""

    duration_seconds: float  # how long this stretch lasted, measured
    students: int  # students of all exams of the run together
    reports: int  # status reports that the students sent, measured
    cpu_seconds: ProcessSplit  # user and system time of all instances, measured on this machine
    memory_bytes: (
        ProcessSplit  # the highest sum seen, shared pages once where the kernel tells (PSS, else RSS); measured
    )
    connections: int  # most sockets open at the same time, proctors too; measured
    connection_minutes: float  # summed over all sockets, not rounded; measured
    connects: int  # accepted connections, measured
    frames_out: int  # frames to clients, measured
    ingress_bytes: int  # frame bytes from clients, measured
    egress_bytes: int  # frame bytes to clients, measured; TLS and TCP overhead is not in it
    journal_entries: int  # entries carried to the durable store, measured
    cross_instance_bytes: int = 0  # between workers and Redis, both directions, measured
    instances: int = 1
    workers: int = 1  # worker processes on each instance
    memory_idle_bytes: ProcessSplit | None = None  # before the first client came, measured
    proctors: int = 0  # proctors of all exams together


Usage = ServerlessUsage | ClusterUsage
