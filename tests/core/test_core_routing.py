import pytest
from core_builders import EXAM_KEY, KEY, PROCTOR, STUDENT, T0
from msgspec.structs import replace

from core import effects as fx
from core import events, routing
from core import messages as m
from core.errors import Forbidden, Malformed

BRIDGE = replace(PROCTOR, role="bridge")
ROOM_1 = replace(PROCTOR, group="room 1")


def source(principal, connection="c1"):
    return routing.Source(connection, T0 - 5, principal)


def route(frame, principal):
    return routing.route(frame, source(principal), T0)


def status(**fields):
    return m.StatusFrame(
        m.Report(
            **({"quiz_id": "quiz", "quiz_attempt_id": "a1", "student_id": "ann", "user_status": "active"} | fields)
        )
    )


def order(**fields):
    return m.OrderFrame(
        m.Order(**({"command_id": "k", "quiz_id": "quiz", "command": "flag", "student_ids": ("ann",)} | fields))
    )


def watch(**fields):
    return m.WatchFrame(m.Watch(**({"quiz_id": "quiz"} | fields)))


def test_a_report_is_an_event_on_the_students_own_record():
    frame = status(time_start=T0 * 1000, time_end=T0 + 60, seq=1)
    routed = route(frame, replace(STUDENT, name="Ann", group="room 1"))
    assert routed == events.Addressed(
        KEY,
        events.StatusReported(
            received_at=T0,
            connection="c1",
            connected_at=T0 - 5,
            report=frame.data,
            time_start=T0,
            time_end=T0 + 60,
            name="Ann",
            group="room 1",
        ),
    )


@pytest.mark.parametrize("field", ["quiz_id", "student_id", "quiz_attempt_id"])
def test_a_report_about_somebody_else_is_forbidden(field):
    with pytest.raises(Forbidden, match=f"data.{field} is not the token's") as caught:
        route(status(seq=7, **{field: "other"}), STUDENT)
    assert caught.value.reference == {"seq": 7}
    assert caught.value.action == "lmsQuizMonitoringStudent"


def test_ids_may_be_numbers():
    student = replace(STUDENT, subject="7", quiz_ids=("8",), attempt_id="9")
    routed = route(status(student_id=7, quiz_id=8, quiz_attempt_id=9), student)
    assert routed.key == ("school", "8", "7")


STUDENTS_FRAMES = [
    status(),
    m.HeartbeatFrame(m.Heartbeat()),
    m.StudentTextFrame(m.StudentText("m1", "raise_hand")),
    m.ReceiptFrame(m.Receipt("k1", "delivered")),
]


@pytest.mark.parametrize("principal", [PROCTOR, ROOM_1, BRIDGE])
@pytest.mark.parametrize("frame", STUDENTS_FRAMES)
def test_only_a_student_speaks_as_a_student(frame, principal):
    with pytest.raises(Forbidden) as caught:
        route(frame, principal)
    assert caught.value.action == frame.__struct_config__.tag


@pytest.mark.parametrize("frame", STUDENTS_FRAMES)
def test_a_student_speaks_for_themselves(frame):
    routed = route(frame, STUDENT)
    assert routed.key == KEY
    assert routed.event.connection == "c1"
    assert routed.event.received_at == T0


@pytest.mark.parametrize("frame", [watch(), watch(stop=True), order(), order(student_ids=None, everyone=True)])
def test_a_student_neither_watches_nor_commands(frame):
    with pytest.raises(Forbidden):
        route(frame, STUDENT)


@pytest.mark.parametrize("frame", [watch(quiz_id="third"), watch(quiz_id="third", stop=True), order(quiz_id="third")])
def test_a_proctor_of_other_exams_is_forbidden(frame):
    with pytest.raises(Forbidden, match="not for a proctor of quiz_id third"):
        route(frame, PROCTOR)


def test_a_school_never_sees_another():
    """The school is the token's, so that the same `quiz_id` of another school is another exam."""
    elsewhere = replace(PROCTOR, school="other school")
    assert route(watch(), elsewhere).exam == ("other school", "quiz")
    assert route(order(), elsewhere).keys == (("other school", "quiz", "ann"),)
    assert not elsewhere.may_watch(EXAM_KEY)


def test_watching_subscribes_and_then_reads_a_snapshot():
    subscribe = route(watch(groups=("room 1", "room 2")), PROCTOR)
    assert subscribe == fx.Subscribe(EXAM_KEY, "c1", ("room 1", "room 2"))
    assert routing.join_proctor(subscribe) == (subscribe, fx.SendSnapshot(EXAM_KEY, "c1", ("room 1", "room 2")))


@pytest.mark.parametrize("principal", [PROCTOR, BRIDGE])
def test_without_groups_all_are_watched(principal):
    assert route(watch(), principal) == fx.Subscribe(EXAM_KEY, "c1", ())
    assert route(watch(stop=True), principal) == fx.Unsubscribe(EXAM_KEY, "c1")


def test_the_group_of_a_token_bounds_what_is_seen():
    assert route(watch(), ROOM_1).groups == ("room 1",)
    assert route(watch(groups=("room 1",)), ROOM_1).groups == ("room 1",)
    for groups in (("room 2",), ("room 1", "room 2")):
        with pytest.raises(Forbidden, match="group room 1 only"):
            route(watch(groups=groups), ROOM_1)


def test_a_command_goes_to_each_student_once():
    routed = route(order(student_ids=("ann", 7, "ann", "7"), text="t", reason_code="r", expires_seconds=60.0), PROCTOR)
    assert routed.keys == (KEY, ("school", "quiz", "7"))
    assert routed.event == events.CommandIssued(
        received_at=T0,
        command_id="k",
        command="flag",
        expires_at=T0 + 60,
        issued_by="pat",
        text="t",
        reason_code="r",
    )


def test_a_command_to_everyone_is_an_event_on_the_exam():
    routed = route(order(student_ids=None, everyone=True), PROCTOR)
    assert isinstance(routed, routing.CommandToAll)
    assert routed.exam == EXAM_KEY
    assert routed.event.command.command_id == "k"
    assert routed.event.command.to_everyone
    assert not route(order(), PROCTOR).event.to_everyone


def test_the_group_of_a_token_bounds_whom_it_commands():
    assert route(order(), ROOM_1).event.only_group == "room 1"
    with pytest.raises(Forbidden, match="can't command everyone"):
        route(order(student_ids=None, everyone=True), ROOM_1)


@pytest.mark.parametrize("fields", [{"student_ids": None}, {"student_ids": ()}, {"everyone": True}])
def test_a_command_names_some_or_everyone(fields):
    with pytest.raises(Malformed, match="either student_ids or everyone") as caught:
        route(order(**fields), PROCTOR)
    assert caught.value.reference == {"command_id": "k"}


@pytest.mark.parametrize(("command", "field"), [("message", "text"), ("warn", "text"), ("update", "extra_minutes")])
def test_a_command_has_what_it_needs(command, field):
    with pytest.raises(Malformed, match=rf"data\.{field}: required for {command}"):
        route(order(command=command), PROCTOR)
    route(order(command=command, text="t", extra_minutes=5.0), PROCTOR)


@pytest.mark.parametrize("command", ["pause", "resume", "terminate", "flag", "acknowledge"])
def test_the_other_commands_need_nothing(command):
    assert route(order(command=command), PROCTOR).event.command == command


def test_a_chat_needs_words_and_a_hand_does_not():
    with pytest.raises(Malformed, match=r"data\.text: empty") as caught:
        route(m.StudentTextFrame(m.StudentText(5, "chat", "  ")), STUDENT)
    assert caught.value.reference == {"message_id": "5"}
    assert route(m.StudentTextFrame(m.StudentText(5, "raise_hand")), STUDENT).event.message_id == "5"


def test_an_instant_that_can_not_be_read_is_malformed_with_the_reports_seq():
    for field in ("time_start", "time_end"):
        with pytest.raises(Malformed, match=rf"data\.{field}: ") as caught:
            route(status(seq=3, **{field: "soon"}), STUDENT)
        assert caught.value.reference == {"seq": 3}
        assert caught.value.action == "lmsQuizMonitoringStudent"


def test_a_token_is_handed_on_to_be_checked():
    assert route(m.TokenFrame(m.TokenData("t")), PROCTOR) == routing.Refresh("t")


def test_a_refreshed_token_is_for_the_same_bearer_and_no_narrower():
    longer = replace(PROCTOR, expires_at=T0 + 9_999, quiz_ids=("quiz", "other", "third"))
    assert routing.refreshed(PROCTOR, longer) is longer
    for wrong in (
        replace(longer, subject="eve"),
        replace(longer, school="other"),
        replace(longer, role="bridge"),
        replace(longer, quiz_ids=("quiz",)),
    ):
        with pytest.raises(Forbidden, match="same bearer"):
            routing.refreshed(PROCTOR, wrong)
    with pytest.raises(Forbidden):
        routing.refreshed(STUDENT, replace(STUDENT, attempt_id="a2"))
