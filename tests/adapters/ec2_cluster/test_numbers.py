"""A refused save uses up its publication's number: subscribers hear the number, so that nobody takes it for a loss."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import redis

from adapters.ec2_cluster.embedded import EmbeddedRedis


def test_a_refused_save_tells_its_number_and_shows_nothing(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path / "redis")
    try:
        with redis.Redis.from_url(server.url) as client, client.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe("exam")
            heard.get_message(timeout=1)
            save = client.register_script(
                resources.files("adapters.ec2_cluster.scripts").joinpath("save.lua").read_text()
            )
            client.hset("owners", "ann", "w2 7")

            def as_owner(owner: str, number: int) -> list[int]:
                publication = f'w1 {number} 5.0\n{{"student_id":"ann"}}\n'
                return save(
                    keys=["records", "owners", "deadlines", "journal", "inboxes"],
                    args=["exam", publication, "", 1, "ann", owner, "record", 0],
                )

            assert as_owner("w1 6", 1) == [1]
            assert client.hgetall("records") == {}
            assert as_owner("w2 7", 2) == []
            said = [heard.get_message(timeout=2)["data"] for _ in range(2)]
        assert said == [b"w1 1 5.0\n", b'w1 2 5.0\n{"student_id":"ann"}\n']
    finally:
        server.stop()
