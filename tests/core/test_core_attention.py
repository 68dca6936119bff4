import pytest
from core_builders import T0, command, heartbeat, joined, lost, report


def away(story):
    """Count, seconds, and the open episode's start."""
    since = story.record.away_since
    return story.record.away_count, round(story.record.away_seconds, 3), None if since is None else since - T0


def test_an_away_of_two_seconds_counts_when_it_ends():
    story = joined()
    story(report(10, status="away"))
    assert away(story) == (0, 0, 10)
    story(report(12, status="active"))
    assert away(story) == (1, 2, None)


def test_a_blink_does_not_count():
    story = joined()
    story(report(10, status="away"))
    story(report(11.999, status="active"))
    assert away(story) == (0, 0, None)


def test_it_counts_once_when_any_later_event_finds_it_two_seconds_old():
    story = joined()
    story(report(10, status="away"))
    story(heartbeat(11))
    assert away(story) == (0, 0, 10)
    story(heartbeat(13))
    assert away(story) == (1, 0, 10)
    story(heartbeat(14))
    story(report(20, status="active"))
    assert away(story) == (1, 10, None)


def test_one_that_begins_less_than_two_seconds_after_the_last_continues_it():
    story = joined()
    for at, status in ((10, "away"), (15, "active"), (16.9, "away"), (20, "active")):
        story(report(at, status=status))
    assert away(story) == (1, 10, None)


def test_one_that_begins_two_seconds_after_the_last_is_another():
    story = joined()
    for at, status in ((10, "away"), (15, "active"), (17, "away"), (20, "active")):
        story(report(at, status=status))
    assert away(story) == (2, 8, None)


def test_two_blinks_with_a_glance_between_are_one_away():
    story = joined()
    for at, status in ((10, "away"), (11, "active"), (12, "away"), (12.5, "active")):
        story(report(at, status=status))
    assert away(story) == (1, 2.5, None)


def test_an_away_that_continues_shows_since_when_it_lasts_in_all():
    story = joined()
    for at, status in ((10, "away"), (15, "active"), (16, "away")):
        story(report(at, status=status))
    assert away(story) == (1, 0, 10)


def test_the_label_changes_at_once_whether_it_counts_or_not():
    story = joined()
    story(report(10, status="away"))
    story(report(10.1, status="active"))
    assert story.labels == ["active", "away", "active"]


def test_an_away_ends_when_the_student_goes_offline():
    story = joined()
    story(report(10, status="away"))
    story(lost(20))
    assert away(story) == (1, 0, 10)
    story.until(40)
    assert away(story) == (1, 30, None)
    assert story.record.attention == "unknown"


def test_attention_is_the_best_of_the_live_pages():
    story = joined(tab_id="one", seq=1)
    story(report(1, connection="c2", connected_at=1, tab_id="two", seq=1, status="away"))
    assert story.record.label == "active"
    story(report(2, tab_id="one", seq=2, status="away"))
    assert story.record.label == "away"
    story(report(3, connection="c2", connected_at=1, tab_id="two", seq=2, status="active"))
    assert story.record.label == "active"


def test_away_is_not_counted_while_paused():
    story = joined()
    story(command(1, "pause"))
    story(report(2, status="away"))
    story(report(30, status="active"))
    assert away(story) == (0, 0, None)
    assert story.record.label == "paused"


@pytest.mark.parametrize("at", [9.0, 10.0])
def test_an_overtaken_report_ends_no_episode_before_it_began(at):
    story = joined(tab_id="one", seq=1)
    story(report(10, tab_id="one", seq=2, status="away"))
    story(report(at, tab_id="one", seq=3, status="active"), now=11)
    assert story.record.away_seconds == 0
