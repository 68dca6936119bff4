"""The service's clock: Redis's, as well as its samples tell."""

from __future__ import annotations

import pytest

from adapters.ec2_cluster.clock import ServiceClock


class Hands:
    """A monotonic clock that is set by hand; Redis's time is 1,000 s ahead of it."""

    def __init__(self) -> None:
        self.at = 10.0
        self.clock = ServiceClock(lambda: self.at)

    def sample(self, *, went: float, came: float, ahead: float = 1_000.0) -> None:
        """Redis tells its time after `went` seconds, and the answer is here `came` seconds later."""
        sent = self.at
        self.at += went + came
        self.clock.sampled(sent + went + ahead, sent, self.at)

    @property
    def error(self) -> float:
        return self.clock.now() - (self.at + 1_000.0)


def test_a_sample_is_right_to_within_half_its_round_trip():
    hands = Hands()
    hands.sample(went=0.0, came=0.08)
    assert abs(hands.error) == pytest.approx(0.04)


def test_a_sample_of_a_busy_moment_does_not_replace_a_better_one():
    hands = Hands()
    hands.sample(went=0.001, came=0.001)
    hands.at += 5
    hands.sample(went=0.0, came=0.2)
    assert hands.error == pytest.approx(0, abs=1e-6)


def test_a_better_sample_replaces_one_of_a_busy_moment():
    hands = Hands()
    hands.sample(went=0.2, came=0.0)
    hands.sample(went=0.001, came=0.001)
    hands.at += 1  # whatever was shown before: time never goes back
    assert hands.error == pytest.approx(0, abs=1e-6)


def test_what_is_known_ages_so_that_a_fair_sample_is_taken_over_later():
    hands = Hands()
    hands.sample(went=0.001, came=0.001)
    hands.at += 3_600
    hands.sample(went=0.0, came=0.02, ahead=1_000.3)  # the clocks have parted by 300 ms within the hour
    assert hands.error == pytest.approx(0.3 - 0.01, abs=1e-6)


def test_a_redis_with_another_clock_is_believed_however_slow_its_answer():
    hands = Hands()
    hands.sample(went=0.001, came=0.001)
    hands.sample(went=0.05, came=0.05, ahead=1_060.0)
    assert hands.error == pytest.approx(60, abs=1e-6)


def test_time_never_goes_back():
    hands = Hands()
    hands.sample(went=0.001, came=0.001)
    shown = hands.clock.now()
    hands.sample(went=0.001, came=0.001, ahead=990.0)
    assert hands.clock.now() == shown
