import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import messages as m
from core.errors import Forbidden, Malformed, RemoteError

# what a client may send, whole
STATUS = {
    "quiz_id": "q",
    "quiz_attempt_id": "a",
    "student_id": "s",
    "user_status": "active",
    "question_answered": 3,
    "question_total": 9,
    "question_number_current": 4,
    "quiz_participant_id": "p",
    "quiz_result_id": "r",
    "score": 1.5,
    "student_name": "Ann",
    "time_end": "2026-01-01T10:00:00Z",
    "time_start": 1_767_225_600_000,
    "topic_uuid": "u",
    "seq": 1,
    "tab_id": "t",
    "next_ms": 5_000,
    "timestamp_sent": 1_767_225_600_123,
    "attempt_state": "in_progress",
}
FRAMES = {
    "lmsQuizMonitoringStudent": STATUS,
    "lmsQuizMonitoringHeartbeat": {"seq": 1, "next_ms": 5_000, "echo": True},
    "lmsQuizStudentMessage": {"message_id": "m", "kind": "chat", "text": "hello"},
    "lmsQuizCommandReceipt": {"command_id": "k", "outcome": "delivered"},
    "lmsQuizToken": {"token": "x.y.z"},
    "lmsQuizMonitoringProctor": {"quiz_id": "q", "groups": ["room 1"], "stop": False},
    "lmsQuizProctorCommand": {
        "command_id": "k",
        "quiz_id": "q",
        "command": "warn",
        "student_ids": ["s"],
        "everyone": False,
        "text": "eyes on your page",
        "extra_minutes": 5.0,
        "reason_code": "P1",
        "expires_seconds": 300.0,
    },
}
REQUIRED = {
    "lmsQuizMonitoringStudent": ("quiz_id", "quiz_attempt_id", "student_id", "user_status"),
    "lmsQuizMonitoringHeartbeat": (),
    "lmsQuizStudentMessage": ("message_id", "kind"),
    "lmsQuizCommandReceipt": ("command_id", "outcome"),
    "lmsQuizToken": ("token",),
    "lmsQuizMonitoringProctor": ("quiz_id",),
    "lmsQuizProctorCommand": ("command_id", "quiz_id", "command"),
}
FIELDS = [(action, field) for action, data in FRAMES.items() for field in data]


def frame(action, data):
    return json.dumps({"action": action, "data": data})


def fault(payload) -> Malformed:
    with pytest.raises(Malformed) as caught:
        m.decode(payload)
    return caught.value


def test_every_action_is_covered():
    assert tuple(FRAMES) == m.CLIENT_ACTIONS


@pytest.mark.parametrize("action", FRAMES)
def test_a_whole_frame_is_read(action):
    read = m.decode(frame(action, FRAMES[action]))
    assert read.__struct_config__.tag == action
    assert set(FRAMES[action]) == set(read.data.__struct_fields__)
    for name, value in FRAMES[action].items():
        assert getattr(read.data, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("action", FRAMES)
def test_only_what_is_required_is_required(action):
    data = {name: FRAMES[action][name] for name in REQUIRED[action]}
    m.decode(frame(action, data))
    for name in REQUIRED[action]:
        error = fault(frame(action, {k: v for k, v in data.items() if k != name}))
        assert (error.code, error.action) == ("bad_field", action)
        assert error.message == f"data.{name}: missing; this field is required"


@pytest.mark.parametrize(("action", "field"), FIELDS)
def test_a_field_of_the_wrong_type_is_named(action, field):
    error = fault(frame(action, FRAMES[action] | {field: {"an": "object"}}))
    assert (error.code, error.action) == ("bad_field", action)
    assert error.message.startswith(f"data.{field}: Expected ")


@pytest.mark.parametrize(
    ("action", "field", "choices"),
    [
        ("lmsQuizMonitoringStudent", "user_status", "active, away, offline"),
        ("lmsQuizMonitoringStudent", "attempt_state", "in_progress, submitted"),
        ("lmsQuizStudentMessage", "kind", "chat, raise_hand, lower_hand"),
        ("lmsQuizCommandReceipt", "outcome", "delivered, confirmed"),
        ("lmsQuizProctorCommand", "command", "message, warn, pause, resume, terminate, update, flag, acknowledge"),
    ],
)
def test_an_unknown_word_is_answered_with_those_there_are(action, field, choices):
    error = fault(frame(action, FRAMES[action] | {field: "x" * 500}))
    assert error.message.startswith(f"data.{field}: Invalid enum value 'xxx")
    assert error.message.endswith(f"; send one of {choices}")
    assert len(error.message) < 250


@pytest.mark.parametrize(
    ("action", "field", "value"),
    [
        ("lmsQuizMonitoringStudent", "user_status", "asleep"),
        ("lmsQuizMonitoringStudent", "quiz_id", ""),
        ("lmsQuizMonitoringStudent", "quiz_id", "q" * 129),
        ("lmsQuizMonitoringStudent", "student_id", 10**40),
        ("lmsQuizMonitoringStudent", "question_answered", -1),
        ("lmsQuizMonitoringStudent", "question_answered", 1_000_001),
        ("lmsQuizMonitoringStudent", "question_answered", "many"),
        ("lmsQuizMonitoringStudent", "question_total", 1.5),
        ("lmsQuizMonitoringStudent", "score", "nan"),
        ("lmsQuizMonitoringStudent", "score", "inf"),
        ("lmsQuizMonitoringStudent", "student_name", "n" * 501),
        ("lmsQuizMonitoringStudent", "seq", 0),
        ("lmsQuizMonitoringStudent", "seq", 2**53 + 1),
        ("lmsQuizMonitoringStudent", "tab_id", ""),
        ("lmsQuizMonitoringStudent", "tab_id", "t" * 65),
        ("lmsQuizMonitoringStudent", "next_ms", -1),
        ("lmsQuizMonitoringStudent", "attempt_state", "paused"),
        ("lmsQuizMonitoringHeartbeat", "next_ms", 86_400_001),
        ("lmsQuizStudentMessage", "kind", "shout"),
        ("lmsQuizStudentMessage", "text", "t" * 501),
        ("lmsQuizCommandReceipt", "outcome", "sent"),
        ("lmsQuizToken", "token", "t" * 8_001),
        ("lmsQuizProctorCommand", "command", "expel"),
        ("lmsQuizProctorCommand", "text", "t" * 501),
        ("lmsQuizProctorCommand", "student_ids", ["s"] * 1_001),
        ("lmsQuizProctorCommand", "extra_minutes", 0),
        ("lmsQuizProctorCommand", "extra_minutes", 601),
        ("lmsQuizProctorCommand", "reason_code", "r" * 65),
        ("lmsQuizProctorCommand", "expires_seconds", 0),
        ("lmsQuizProctorCommand", "expires_seconds", 86_401),
    ],
)
def test_a_value_out_of_bounds_is_named(action, field, value):
    error = fault(frame(action, FRAMES[action] | {field: value}))
    assert error.message.startswith(f"data.{field}: ")
    assert error.code == "bad_field"


def test_an_element_of_a_list_is_named():
    assert fault(frame("lmsQuizMonitoringProctor", {"quiz_id": "q", "groups": ["a", 5]})).message.startswith(
        "data.groups[1]: "
    )


def test_numbers_may_come_as_strings_and_ids_as_numbers():
    read = m.decode(
        frame("lmsQuizMonitoringStudent", STATUS | {"quiz_id": 7, "question_answered": "3", "seq": "9", "score": "1.5"})
    ).data
    assert (read.quiz_id, read.question_answered, read.seq, read.score) == (7, 3, 9, 1.5)


def test_unknown_fields_are_ignored_and_null_means_absent():
    read = m.decode(frame("lmsQuizMonitoringStudent", STATUS | {"lmsVersion": 3, "score": None})).data
    assert read.score is None


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("", "not_json"),
        ("{", "not_json"),
        (b"\xff\xfe", "not_json"),
        ("[" * 100_000, "not_json"),
        ('{"action":"lmsQuizToken","data":{"token":NaN}}', "not_json"),
        ("[]", "bad_frame"),
        ('"text"', "bad_frame"),
        ("5", "bad_frame"),
        ("{}", "unknown_action"),
        ('{"data":{}}', "unknown_action"),
        ('{"action":5,"data":{}}', "unknown_action"),
        ('{"action":"ack","data":{}}', "unknown_action"),
        ('{"action":"$connect","data":{}}', "unknown_action"),
        ('{"action":"lmsQuizToken"}', "bad_field"),
        ('{"action":"lmsQuizToken","data":[]}', "bad_field"),
        ('{"action":"lmsQuizToken","data":null}', "bad_field"),
    ],
)
def test_what_is_no_frame_says_what_a_frame_is(payload, code):
    error = fault(payload)
    assert error.code == code
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("action", "field", "value", "broken"),
    [
        ("lmsQuizMonitoringStudent", "seq", 4, {"user_status": "asleep"}),
        ("lmsQuizStudentMessage", "message_id", "m7", {"kind": "shout"}),
        ("lmsQuizCommandReceipt", "command_id", "k7", {"outcome": "lost"}),
        ("lmsQuizProctorCommand", "command_id", 7, {"command": "expel"}),
    ],
)
def test_an_error_names_what_it_answers(action, field, value, broken):
    error = fault(frame(action, FRAMES[action] | {field: value} | broken))
    sent = json.loads(m.encode(m.error_frame(error)))
    assert sent["action"] == "error"
    assert sent["data"]["action"] == action
    assert sent["data"][field] == (value if field == "seq" else str(value))
    assert "final" not in sent["data"]


def test_a_final_error_says_so():
    sent = json.loads(m.encode(m.error_frame(RemoteError("token_invalid", "expired", final=True))))
    assert sent["data"] == {"code": "token_invalid", "message": "expired", "final": True}


def test_errors_print_what_happened():
    assert str(Forbidden("not yours")) == "forbidden: not yours"


def answer(payload) -> str:
    """The words of the error that a frame is answered with; empty if it is read."""
    try:
        m.decode(payload)
    except Malformed as error:
        return json.loads(m.encode(m.error_frame(error)))["data"]["message"]
    return ""


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(ANYTHING, st.sampled_from([*FRAMES, "nothing"]))
def test_whatever_a_client_sends_is_read_or_malformed(data, action):
    answer(json.dumps({"action": action, "data": data}))
    assert answer(json.dumps(data))


@given(st.sampled_from(FIELDS), st.none() | st.booleans() | st.integers() | st.text(max_size=40))
def test_whatever_stands_in_a_field_is_read_or_named(place, value):
    action, field = place
    said = answer(frame(action, FRAMES[action] | {field: value}))
    assert said == "" or said.startswith((f"data.{field}", "the frame is not valid JSON"))


@given(st.binary(max_size=60))
def test_whatever_bytes_arrive_are_read_or_malformed(payload):
    with pytest.raises(Malformed):
        m.decode(payload)


# --- instants -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        (1_767_225_600, 1_767_225_600),
        ("1767225600", 1_767_225_600),
        (1_767_225_600_500, 1_767_225_600.5),
        ("1767225600500", 1_767_225_600.5),
        ("2026-01-01T00:00:00Z", 1_767_225_600),
        ("2026-01-01T00:00:00", 1_767_225_600),
        ("2026-01-01 08:00:00+08:00", 1_767_225_600),
        ("2026-01-01", 1_767_225_600),
        (0, 0),
    ],
)
def test_an_instant_may_be_seconds_milliseconds_or_iso(value, seconds):
    assert m.instant(value, "time_end") == seconds


@pytest.mark.parametrize("value", ["soon", "2026-13-01", -1, "-5", 1e15, 10**400, "1e999", "nan", "infinity"])
def test_what_is_no_instant_is_named(value):
    with pytest.raises(Malformed, match=r"data\.time_end: .*send epoch milliseconds"):
        m.instant(value, "time_end")


@given(st.text(max_size=40) | st.integers() | st.floats())
def test_any_instant_is_read_or_malformed(value):
    try:
        read = m.instant(value, "time_end")
    except Malformed:
        return
    assert read is None or isinstance(read, float)


# --- what the server says -------------------------------------------------------------------------------------------------


def test_frames_of_the_server_have_their_names_on_the_wire():
    tags = {
        t.__struct_config__.tag
        for t in (
            m.Ack,
            m.Joined,
            m.Snapshot,
            m.Update,
            m.StudentMessage,
            m.CommandStatus,
            m.Command,
            m.Reconnect,
            m.Error,
        )
    }
    assert tags == {
        "ack",
        "joined",
        "lmsQuizMonitoringSnapshot",
        "lmsQuizMonitoringUpdate",
        "lmsQuizMonitoringMessage",
        "lmsQuizCommandStatus",
        "lmsQuizCommand",
        "reconnect",
        "error",
    }


def test_what_is_absent_is_left_out():
    assert json.loads(m.encode(m.Ack(m.AckData(5.5, seq=1)))) == {
        "action": "ack",
        "data": {"server_time": 5.5, "seq": 1},
    }
    sent = json.loads(m.encode(m.Reconnect(m.ReconnectData(50, "drain"))))
    assert sent == {"action": "reconnect", "data": {"after_ms": 50, "reason": "drain"}}


def test_a_part_that_was_encoded_once_is_sent_as_it_is():
    part = m.encode_value({"a": 1})
    update = m.Update(m.UpdateData("q", (msgspec.Raw(part),), (), 1.0))
    assert json.loads(m.encode(update))["data"]["participants"] == [{"a": 1}]
