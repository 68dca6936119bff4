"""A proctor whose line is slow, over a real socket: updates further and further apart, then none, then one snapshot."""

import asyncio
import json
import time

from msgspec.structs import replace
from transport_peers import TEXT, Recorder, until

from adapters.ec2_cluster import hub as hub_module
from adapters.ec2_cluster.hub import Hub
from adapters.ec2_cluster.keys import exam_keys
from core.messages import encode_value
from core.participant import ExamKey, ParticipantKey, new_participant
from core.snapshot import view

EXAM = ExamKey("school", "quiz")
STUDENTS = [f"s{number}" for number in range(20)]


class Truth:
    """The records, and the subscription that brings their publications."""

    def __init__(self):
        self.records = {
            name: replace(new_participant(ParticipantKey(*EXAM, name), "ec2"), version=1) for name in STUDENTS
        }

    def change(self, number):
        for name, record in self.records.items():
            self.records[name] = replace(record, version=record.version + 1, question_answered=number)
        return b",".join(encode_value(view(record)) for record in self.records.values())

    async def subscribe(self, *channels):
        """It has taken hold."""

    async def participants(self, key):
        return list(self.records.values())

    async def shown(self, key):
        return []

    async def load_exam(self, key):
        return None


async def test_a_stalled_proctor_is_shown_things_less_often_then_not_and_then_as_they_are(serve, monkeypatch):
    monkeypatch.setattr(hub_module, "_PACES_SECONDS", (0.01, 0.02, 0.04, 0.08))
    truth, tasks, recorder = Truth(), [], Recorder()
    hub = Hub(truth, time.time, lambda job: tasks.append(asyncio.ensure_future(job)), 0.002)
    hub.subscriber = truth
    recorder.writable = hub.writable
    served = await serve(recorder, socket_send_bytes=4096, close_seconds=5.0)
    peer = await served.peer(receive_buffer=4096)
    connection = recorder.connections[0]
    await hub.join(EXAM, connection, ())
    numbers = iter(range(1, 10_000))

    def publish():
        number = next(numbers)
        header = f"w1 {number} {time.time() - 0.2:.3f}".encode()
        hub.published(exam_keys(EXAM).channel, header + b"\n" + truth.change(number))

    async def publish_until(condition):
        async with asyncio.timeout(20):
            while not condition():
                publish()
                await asyncio.sleep(0.004)

    await publish_until(lambda: hub.slowed == 1)
    await publish_until(lambda: hub.slowed_total >= 3)
    assert hub.conflated > 0
    assert hub.left_out == 0
    assert connection.is_open
    await publish_until(lambda: hub.left_out > 0)
    assert connection.buffered_bytes < 256 * 1024
    seen = {}

    async def read():
        while True:
            kind, payload = await peer.next()
            assert kind == TEXT
            for shown in json.loads(payload)["data"]["participants"]:
                if shown["version"] >= seen.get(shown["student_id"], {"version": 0})["version"]:
                    seen[shown["student_id"]] = shown

    reading = asyncio.ensure_future(read())
    await until(lambda: hub.slowed == 0)
    publish()
    last = next(numbers) - 1
    await until(
        lambda: {name: shown["question_answered"] for name, shown in seen.items()} == dict.fromkeys(STUDENTS, last)
    )
    reading.cancel()
    assert connection.is_open
    assert sum(hub.deliveries.counts) > 0
    assert hub.deliveries.quantile(0.01) >= 0.25  # reports of 0.2 s ago, and later for one who is slowed
    hub.leave(EXAM, connection)
    assert hub.slowed == 0
