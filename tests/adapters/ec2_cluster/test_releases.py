"""A rolling upgrade: this release and the next one over the same Redis, a student going back and forth between them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import redis
from deployments import ClusterDeployment
from wire_clients import Dashboard, Page

from adapters.ec2_cluster.keys import exam_keys
from adapters.ec2_cluster.local import LocalCluster

NEXT_RELEASE = """
import core.participant as records

_encode = records.encode

def encode(record):
    "The next release counts its own saves, in a field that the release before it has never heard of."
    later = dict(record.later or {})
    later["zz"] = later.get("zz", 0) + 1
    return _encode(records.replace(record, later=later, schema=records.SCHEMA + 1))

records.encode = encode
"""


def stored(cluster: LocalCluster, exam: ClusterDeployment, student: str) -> dict[str, object]:
    with redis.Redis.from_url(cluster.redis_url) as client:
        record = client.hget(exam_keys(exam.exam).records, student)
    assert isinstance(record, bytes)
    return msgspec.msgpack.decode(record)


async def test_two_releases_share_one_redis(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NEXT_RELEASE)
    upgraded = {"PYTHONPATH": str(tmp_path)}
    async with LocalCluster(instances=2, workers=1, environments=[{}, upgraded]) as cluster:
        exam = ClusterDeployment(cluster, "upgrade")
        proctor = Dashboard(exam, instance=0)
        await proctor.connect()
        await proctor.watch()
        counts = []
        for turn in range(6):
            page = Page(exam, "s1", tab_id="tab")
            page.seq = turn
            page.url = exam.url(turn % 2)
            await page.connect()
            await page.reported(question_answered=turn)
            await proctor.sees("s1", question_answered=turn)
            counts.append(stored(cluster, exam, "s1").get("zz", 0))
            await page.close(1000)
        await proctor.close()
        # Who owned the participant once may pass a report on, so not every turn of the next release is a save of its own.
        assert counts == sorted(counts)
        assert counts[0] == 0 < counts[1] < counts[5]
        assert stored(cluster, exam, "s1")["sc"] == 2
