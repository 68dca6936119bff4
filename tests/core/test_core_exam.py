import msgspec
import pytest
from core_builders import EXAM, EXAM_KEY, KEY, T0, Story, command, frames, heartbeat, joined, lost, of, report
from msgspec.structs import replace

from core import decide_exam, exam, incidents, new_exam
from core import effects as fx
from core import messages as m
from core.events import ExamClosed, ExamCommandIssued, ExamOpened, SweepCounted
from core.participant import Participant, Session


def sweep(at, *, taking=100, fell=0, still=0, last_time_end=None):
    return SweepCounted(
        received_at=T0 + at, taking=taking, fell_silent=fell, still_silent=still, last_time_end=last_time_end
    )


def swept(before, at, **counts):
    return decide_exam(before, sweep(at, **counts), T0 + at)


def everyone(at, name="message", **fields):
    return ExamCommandIssued(received_at=T0 + at, command=command(at, name, **fields))


# --- open and closed ------------------------------------------------------------------------------------------------------


def test_closing_ends_the_sweep_and_what_stands():
    open_exam = replace(EXAM, standing=(command(0, "message", text="t"),))
    decision = decide_exam(open_exam, ExamClosed(received_at=T0 + 5, by="api"), T0 + 5)
    assert (decision.exam.state, decision.exam.standing) == ("closed", ())
    assert decision.effects == (fx.ScheduleSweep(EXAM_KEY, "stop"),)
    assert [(e.kind, e.cause, e.after, e.actor, e.student_id) for e in decision.entries] == [
        ("exam", "closed", "closed", "api", "")
    ]


def test_closing_and_opening_twice_is_no_change():
    closed = decide_exam(EXAM, ExamClosed(received_at=T0, by="api"), T0).exam
    assert decide_exam(closed, ExamClosed(received_at=T0, by="api"), T0 + 1).exam is closed
    assert decide_exam(EXAM, ExamOpened(received_at=T0, by="api"), T0 + 1).exam is EXAM
    assert swept(closed, 9).exam is closed


def test_opening_again_sweeps_again_and_is_no_gap_of_the_service():
    closed = decide_exam(EXAM, ExamClosed(received_at=T0, by="api"), T0).exam
    decision = decide_exam(closed, ExamOpened(received_at=T0 + 900, by="api"), T0 + 900)
    assert decision.exam.state == "open"
    assert decision.effects == (fx.ScheduleSweep(EXAM_KEY, "start"),)
    assert swept(decision.exam, 910).exam.incidents == ()


def test_opening_a_paused_exam_does_not_resume_it():
    paused = decide_exam(EXAM, everyone(0, "pause"), T0).exam
    assert decide_exam(paused, ExamOpened(received_at=T0 + 1, by="api"), T0 + 1).exam is paused


def test_it_closes_an_hour_after_its_last_end():
    known = swept(EXAM, 10, last_time_end=T0 + 100).exam
    assert known.last_time_end == T0 + 100
    assert swept(replace(known, last_sweep_at=T0 + 3_690), 3_699).exam.state == "open"
    decision = swept(replace(known, last_sweep_at=T0 + 3_690), 3_700)
    assert decision.exam.state == "closed"
    assert decision.effects == (fx.ScheduleSweep(EXAM_KEY, "stop"),)


def test_a_report_to_a_closed_exam_is_refused_and_not_acknowledged():
    story = Story(replace(EXAM, state="closed"))
    decision = story(report(0, seq=4, tab_id="t"))
    assert decision.participant is story.record
    (error,) = frames(decision, m.Error)
    assert (error.code, error.seq, error.action) == ("exam_closed", 4, "lmsQuizMonitoringStudent")
    assert len(decision.effects) == 1


def test_the_version_of_an_exam_never_falls():
    ahead = replace(EXAM, version=int((T0 + 50) * 1000))
    assert decide_exam(ahead, everyone(1), T0 + 1).exam.version == ahead.version + 1


# --- commands to everyone -------------------------------------------------------------------------------------------------


def test_a_command_to_everyone_stands_and_goes_to_each():
    event = everyone(1, "message", text="no phones")
    decision = decide_exam(EXAM, event, T0 + 1)
    assert decision.exam.standing == (event.command,)
    assert decision.effects == (fx.CommandEveryone(EXAM_KEY, event.command),)
    assert [(e.kind, e.cause, e.actor) for e in decision.entries] == [("exam", "message", "proctor")]


def test_sent_again_it_goes_out_again_and_stands_once():
    once = decide_exam(EXAM, everyone(1, text="t"), T0 + 1).exam
    again = decide_exam(once, everyone(2, text="t"), T0 + 2)
    assert again.exam is once
    assert [type(e) for e in again.effects] == [fx.CommandEveryone]
    assert again.entries == ()


def test_pausing_and_resuming_everyone_is_a_state_of_the_exam():
    paused = decide_exam(EXAM, everyone(1, "pause"), T0 + 1)
    assert paused.exam.state == "paused"
    assert paused.entries[0].after == "paused"
    assert decide_exam(paused.exam, everyone(2, "resume", id="k2"), T0 + 2).exam.state == "open"


def test_what_has_expired_stands_no_more_and_only_so_many_do():
    stands = EXAM
    for n in range(20):
        stands = decide_exam(stands, everyone(n, id=f"k{n}", expires=60, text="t"), T0 + n).exam
    assert [c.command_id for c in stands.standing] == [f"k{n}" for n in range(4, 20)]
    assert [c.command_id for c in decide_exam(stands, everyone(75, id="new", text="t"), T0 + 75).exam.standing] == [
        "k16",
        "k17",
        "k18",
        "k19",
        "new",
    ]


# --- mass silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taking", "fell", "is_incident"),
    [
        (20, 9, False),
        (20, 10, True),
        (50, 10, True),
        (60, 11, False),
        (60, 12, True),
        (1000, 199, False),
        (1000, 200, True),
    ],
)
def test_an_incident_takes_a_fifth_and_at_least_ten(taking, fell, is_incident):
    decision = swept(EXAM, 10, taking=taking, fell=fell, still=fell)
    assert bool(decision.exam.incidents) == is_incident
    assert bool(decision.effects) == is_incident
    if is_incident:
        assert decision.exam.incidents == (m.Incident("silence", T0 + 10, fell),)
        assert decision.effects == (fx.PublishIncidents(EXAM_KEY, decision.exam.incidents),)
        assert [(e.kind, e.cause, e.after, e.text) for e in decision.entries] == [
            ("incident", "silence", "open", f"{fell} participants")
        ]


def test_it_ends_when_half_are_back_and_its_largest_count_is_kept():
    during = swept(EXAM, 10, fell=20, still=20).exam
    during = swept(during, 20, still=35).exam
    assert during.incidents == (m.Incident("silence", T0 + 10, 35),)
    during = swept(during, 30, still=10).exam
    assert during.open_incident("silence")
    over = swept(during, 40, still=9)
    assert over.exam.incidents == (m.Incident("silence", T0 + 10, 35, T0 + 40),)
    assert over.entries[0].after == "ended"
    assert over.effects == (fx.PublishIncidents(EXAM_KEY, over.exam.incidents),)


def test_it_ends_after_five_minutes_whatever_happens():
    during = swept(EXAM, 10, fell=20, still=20).exam
    for at in range(20, 310, 10):
        during = swept(during, at, still=20).exam
        assert during.open_incident("silence"), at
    assert swept(during, 310, still=20).exam.incidents[0].ended_at == T0 + 310


def test_an_incident_that_goes_on_unchanged_is_not_published_again():
    during = swept(EXAM, 10, fell=20, still=20).exam
    decision = swept(during, 20, still=20)
    assert (decision.entries, decision.effects) == ((), ())
    assert decision.exam.hold_until == T0 + 50


def test_while_it_is_open_nobody_turns_offline_and_each_is_decided_half_a_minute_after_its_end():
    story = joined()
    story.until(12.5)
    story.exam = swept(EXAM, 15, fell=20, still=20).exam
    for at in range(20, 100, 5):
        if at % 10 == 5:
            story.exam = swept(story.exam, at, fell=0, still=20).exam
        assert story.until(at) == "reconnecting"
    story.exam = swept(story.exam, 105, still=0).exam
    assert story.exam.open_incident("silence") is None
    assert story.until(134.9) == "reconnecting"
    assert story.until(135) == "offline"


def test_who_comes_back_during_it_is_shown_so():
    story = joined()
    story.until(12.5)
    story.exam = swept(EXAM, 15, fell=20, still=20).exam
    story(report(20, connection="c2", connected_at=20))
    assert story.record.label == "active"
    story.until(32.5)
    assert story.record.label == "reconnecting"


def test_the_time_of_incidents_is_not_charged_to_a_student():
    story = joined()
    story(lost(10))
    story.until(30)
    story.exam = replace(
        EXAM,
        incidents=(m.Incident("silence", T0 + 40, 20, T0 + 70), m.Incident("service", T0 + 60, 0, T0 + 80)),
    )
    story(report(100, connection="c2", connected_at=100))
    assert story.record.offline_seconds == 70 - 40


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ((), 0),
        (((0, 5),), 0),
        (((0, 15),), 5),
        (((12, 15),), 3),
        (((15, 99),), 5),
        (((15, None),), 5),
        (((0, None),), 10),
        (((12, 15), (13, 17)), 5),
        (((13, 17), (12, 15)), 5),
        (((12, 18), (13, 15)), 6),
        (((11, 12), (14, 15)), 2),
        (((20, 30),), 0),
    ],
)
def test_seconds_in_incidents_are_counted_once(spans, seconds):
    known = tuple(m.Incident("silence", start, 1, end) for start, end in spans)
    assert incidents.seconds_in_incidents(known, 10, 20) == seconds


# --- counting -------------------------------------------------------------------------------------------------------------


def silent(n, **fields):
    session = {"presence": "reconnecting", "lease_until": T0 + 20, "grace_seconds": 20.0} | fields.pop("session", {})
    return Participant(
        *KEY._replace(student_id=f"s{n}"),
        home="ec2",
        **({"lifecycle": "in_progress", "sessions": (Session("s", f"c{n}", T0, **session),)} | fields),
    )


@pytest.mark.parametrize(
    ("participant", "taking", "fell", "still"),
    [
        (silent(1), 1, 1, 1),
        (silent(1, session={"presence": "connected"}), 1, 0, 0),
        (silent(1, session={"presence": "offline"}), 0, 0, 0),
        (silent(1, session={"presence": "left"}), 0, 0, 0),
        (silent(1, session={"planned_until": T0 + 60}), 1, 0, 0),
        (silent(1, session={"planned_until": T0 + 9}), 1, 1, 1),
        (silent(1, session={"lease_until": T0 - 1}), 1, 0, 1),
        (silent(1, lifecycle="submitted"), 0, 0, 0),
        (silent(1, lifecycle="paused"), 0, 0, 0),
        (silent(1, lifecycle="not_joined", sessions=()), 0, 0, 0),
    ],
)
def test_who_counts(participant, taking, fell, still):
    counts = incidents.count([participant], T0 + 10, EXAM.policy)
    assert (counts.taking, counts.fell_silent, counts.still_silent) == (taking, fell, still)


def test_counts_of_several_processes_add_up():
    people = [silent(n, time_end_reported=T0 + n) for n in range(5)]
    whole = incidents.count(people, T0 + 10, EXAM.policy)
    parts = incidents.count(people[:2], T0 + 10, EXAM.policy) + incidents.count(people[2:], T0 + 10, EXAM.policy)
    assert whole == parts == incidents.SilenceCounts(5, 5, 5, T0 + 4)
    assert whole + incidents.SilenceCounts() == whole


def test_silence_begins_when_the_lease_ran_out_and_not_when_someone_looked():
    story = joined()
    story.until(12.5)
    look = lambda at: incidents.count([story.record], T0 + at, EXAM.policy).fell_silent  # noqa: E731
    assert (look(13), look(42.5), look(42.6)) == (1, 1, 0)


def test_a_school_whose_line_is_cut():
    """Thirty students, from their reports to the end of the incident: nobody is ever shown offline."""
    stories = []
    for _ in range(30):
        story = joined()
        stories.append(story)
    state = EXAM
    for at in range(1, 200):
        for n, story in enumerate(stories):
            story.exam = state
            story.until(at)
            if (at < 50 or at > 120) and (at + n) % 5 == 0:
                story(heartbeat(at))
        if at % 10 == 0:
            found = incidents.count((s.record for s in stories), T0 + at, state.policy)
            state = decide_exam(state, SweepCounted(received_at=T0 + at, **msgspec.structs.asdict(found)), T0 + at).exam
    assert [(i.kind, i.count, i.ended_at is not None) for i in state.incidents] == [("silence", 30, True)]
    assert {label for s in stories for label in s.labels} == {"active", "reconnecting"}
    assert {s.record.label for s in stories} == {"active"}


# --- the service itself was away ------------------------------------------------------------------------------------------

SWEPT = replace(EXAM, last_sweep_at=T0)


def test_an_exam_that_nobody_takes_yet_has_no_gap():
    assert swept(EXAM, 7_200, taking=30).exam.incidents == ()
    idle = swept(SWEPT, 10, taking=0).exam
    assert swept(idle, 7_200, taking=30).exam.incidents == ()


def test_a_sweep_that_comes_more_than_half_a_minute_late_finds_a_gap_of_the_service():
    assert swept(SWEPT, 30).exam.incidents == ()
    decision = swept(SWEPT, 30.1)
    assert decision.exam.incidents == (m.Incident("service", T0, 0),)
    assert decision.effects == (fx.PublishIncidents(EXAM_KEY, decision.exam.incidents),)
    ended = swept(decision.exam, 40)
    assert ended.exam.incidents == (m.Incident("service", T0, 0, T0 + 40),)


def test_after_a_gap_all_leases_wait_a_minute():
    story = joined()
    story.exam = swept(SWEPT, 100).exam
    assert story.until(159.9) == "active"
    story.exam = swept(story.exam, 110).exam
    assert story.until(160) == "reconnecting"
    assert story.until(172.4) == "reconnecting"
    assert story.until(172.5) == "offline"


def test_after_a_gap_a_socket_that_had_closed_waits_too():
    story = joined()
    story(lost(1))
    story.exam = swept(SWEPT, 100).exam
    assert story.until(159.9) == "reconnecting"
    assert story.until(160) == "offline"


def test_the_time_of_a_gap_is_not_charged():
    story = joined()
    story.until(25)
    gap = swept(replace(EXAM, last_sweep_at=T0 + 20), 80).exam
    story.exam = swept(gap, 90).exam
    story(report(100, connection="c2", connected_at=100))
    assert story.record.offline_seconds == 75 - 65


def test_an_exam_remembers_only_so_many_incidents():
    state = EXAM
    for n in range(1, 30):
        state = swept(replace(state, last_sweep_at=T0 + n * 100), n * 100 + 50).exam
        state = swept(state, n * 100 + 60).exam
    assert len(state.incidents) == incidents.MAX_INCIDENTS_KEPT


def test_an_exam_is_kept_as_json_and_comes_back_the_same():
    full = replace(
        new_exam(EXAM_KEY, "lambda", T0),
        standing=(command(1, "update", extra_minutes=2.0),),
        incidents=(m.Incident("silence", T0, 12, T0 + 5),),
        hold_until=T0 + 9,
        gap_until=T0 + 8,
        moving_to="ec2",
    )
    assert exam.decode(exam.encode(full)) == full
    assert exam.decode(exam.encode(full).decode()) == full
    assert full.key == EXAM_KEY


def test_nothing_is_published_by_a_quiet_sweep():
    decision = swept(EXAM, 10, taking=1)
    assert (decision.entries, decision.effects) == ((), ())
    assert decision.exam.last_sweep_at == T0 + 10
    assert of(decision.effects, fx.PublishIncidents) == []
