"""How often one key may ask."""

from msgspec.structs import replace
from web_api import NORTH, NORTH_NEXT, settings

from adapters.web.app import create_app
from adapters.web.limits import RateLimit


def test_a_key_gets_its_burst_and_then_its_rate():
    now = 0.0
    limit = RateLimit(2.0, 3.0, lambda: now)
    assert [limit.wait_seconds("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait_seconds("b") == 0
    now = 0.5
    assert [limit.wait_seconds("a") for _ in range(2)] == [0, 0.5]
    now = 100.0
    assert [limit.wait_seconds("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_keys_that_were_quiet_are_forgotten():
    limit = RateLimit(1.0, 1.0, lambda: 0.0)
    for number in range(10_100):
        limit.wait_seconds(str(number))
    assert len(limit._buckets) == 10_000


def test_who_asks_too_often_is_told_when_to_come_again_and_others_are_served(cluster):
    app = create_app(cluster.ports, replace(settings(), requests_per_second=0.001, request_burst=2.0))
    with app.test_client() as client:

        def ask(key, path="/api/exams"):
            return client.get(path, headers={"X-Api-Key": key})

        assert [ask(NORTH).status_code for _ in range(2)] == [200, 200]
        refused = ask(NORTH)
        assert (refused.status_code, refused.json["code"]) == (429, "too_many_requests")
        assert 900 <= int(refused.headers["Retry-After"]) <= 1_000  # less what the requests took
        assert refused.content_type == "application/problem+json"
        assert ask(NORTH_NEXT).status_code == 200
        assert ask(NORTH, "/healthz").status_code == 200
