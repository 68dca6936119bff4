"""Students' pages and proctors' dashboards as they behave on the wire: they number, repeat, reconnect and merge.

They speak to a `Service` through text frames alone, and know the truth: what a student last said, and whether they are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from sim_world import T0, World

from core import messages as m
from core.identity import Principal
from core.participant import ExamKey, ParticipantKey
from core.snapshot import newer

EXAM = ExamKey("school", "quiz")
INTERVAL = 5.0
HEAL_AT = T0 + 40.0


class Client(Protocol):
    principal: Principal

    def opened(self, connection: Any) -> None: ...

    def heard(self, connection: Any, action: str, data: dict[str, Any]) -> None: ...

    def lost(self, connection: Any) -> None: ...

    def refused(self) -> None: ...


class Service(Protocol):
    """Where clients connect. What they are given sends and hangs up: `send(text)`, `close(code | None)`."""

    def connect(self, client: Client) -> None: ...


def frame(action: str, **data: Any) -> str:
    return json.dumps({"action": action, "data": data})


class Student:
    """One student with one page. A seed chooses what befalls it."""

    def __init__(self, world: World, service: Service, name: str) -> None:
        self.world = world
        self.service = service
        self.principal = Principal("student", *EXAM[:1], name, EXAM[1:], T0 + 9_999, "a1")
        self.key = ParticipantKey(*EXAM, name)
        self.connection: Any = None
        self.connecting = False
        self.joined = False
        self.here = True
        self.goodbye = False
        self.submitted = False
        self.status = "active"
        self.seq = 0
        self.answered = 0
        self.unacked: dict[int, dict[str, Any]] = {}
        self.sent: dict[int, list[float]] = {}
        self.words: dict[str, str] = {}
        self.receipts: dict[tuple[str, str], bool] = {}
        self.commands: list[str] = []
        # what was promised by an ack: the highest answer, a submission, messages; and by one sent once, when it was received
        self.acked_answered = 0
        self.acked_submission = False
        self.acked_words: set[str] = set()
        self.joined_at: float | None = None
        self.heard_at: list[tuple[float, float]] = []
        dice = world.random
        world.after(dice.uniform(0, 6), self._connect)
        world.after(dice.uniform(0, 6), self._tick)
        for _ in range(dice.randrange(4)):
            world.after(dice.uniform(4, 38), self._mishap)
        if dice.random() < 0.5:
            world.after(dice.uniform(8, 38), self._say)
        fate = dice.random()
        if fate < 0.45:
            world.after(dice.uniform(3, 38), dice.choice((self._vanish, self._vanish, self._freeze, self._leave)))
        elif fate < 0.6:
            world.after(dice.uniform(10, 38), self._submit)

    # --- what a page does ---

    def _connect(self) -> None:
        if self.here and self.connection is None and not self.connecting:
            self.connecting = True
            self.service.connect(self)

    def opened(self, connection: Any) -> None:
        self.connecting = False
        if not self.here:
            connection.close(None)
            return
        self.connection, self.joined = connection, False
        if not self.unacked:
            self._report()
        else:
            self._resend(at_once=True)

    def _tick(self) -> None:
        if not self.here:
            return
        dice = self.world.random
        self.world.after(INTERVAL + dice.uniform(-0.4, 0.0), self._tick)
        if self.connection is None:
            return
        if self.unacked:
            self._resend()
        elif self.world.now > HEAL_AT + 8 or dice.random() < 0.4:
            self.connection.send(frame("lmsQuizMonitoringHeartbeat", seq=self.seq, next_ms=5_000))
        else:
            self.status = dice.choice(("active", "active", "away"))
            self._report()

    def _report(self) -> None:
        self.seq += 1
        self.answered += 1
        data = {
            "quiz_id": EXAM.quiz_id,
            "quiz_attempt_id": "a1",
            "student_id": self.key.student_id,
            "user_status": self.status,
            "question_answered": self.answered,
            "seq": self.seq,
            "tab_id": "tab",
            "next_ms": 5_000,
        }
        if self.submitted:
            data["attempt_state"] = "submitted"
        self.unacked[self.seq] = data
        self._send(self.seq)

    def _send(self, seq: int) -> None:
        self.sent.setdefault(seq, []).append(self.world.now)
        self.connection.send(frame("lmsQuizMonitoringStudent", **self.unacked[seq]))

    def _resend(self, *, at_once: bool = False) -> None:
        for seq in list(self.unacked):
            if self.connection is not None and (at_once or self.world.now - self.sent[seq][-1] > 3):
                self._send(seq)
        for message_id, kind in self.words.items():
            self._send_words(message_id, kind)
        for command_id, outcome in self.receipts:
            self._send_receipt(command_id, outcome)

    def heard(self, connection: Any, action: str, data: dict[str, Any]) -> None:
        if connection is not self.connection or not self.here:
            return
        if action == "ack":
            self._acked(data)
        elif action == "lmsQuizCommand":
            command_id = data["command_id"]
            self.commands.append(command_id)
            if (command_id, "delivered") not in self.receipts:
                self.receipts[command_id, "delivered"] = True
                self._send_receipt(command_id, "delivered")
        elif action == "error" and data["code"] == "report_first":
            self._report()

    def _acked(self, data: dict[str, Any]) -> None:
        seq, message_id, command_id = data.get("seq"), data.get("message_id"), data.get("command_id")
        if seq is not None:
            report = self.unacked.pop(seq, None)
            if report is not None:
                self.acked_answered = max(self.acked_answered, report["question_answered"])
                self.acked_submission |= "attempt_state" in report
                self.joined_at = self.joined_at or self.world.now
        if message_id is not None:
            self.words.pop(message_id, None)
            self.acked_words.add(message_id)
        if command_id is not None:
            self.receipts.pop((command_id, "delivered"), None)

    def lost(self, connection: Any) -> None:
        if connection is self.connection:
            self.connection = None
            self.world.after(self.world.random.uniform(0.1, 3), self._connect)

    def refused(self) -> None:
        self.connecting = False
        self._connect()

    # --- what befalls it ---

    def _mishap(self) -> None:
        """The socket breaks, with or without anybody being told; the page comes back after a while."""
        if self.connection is None or not self.here:
            return
        connection, self.connection = self.connection, None
        connection.close(None)
        dice = self.world.random
        back = dice.choice((0.05, 0.5, 2.0, dice.uniform(5, 30)))
        self.world.at(min(self.world.now + back, HEAL_AT), self._connect)

    def _vanish(self) -> None:
        self.here = False
        if self.connection is not None:
            self.connection.close(None)

    def _freeze(self) -> None:
        """The socket stays open, and not another frame comes."""
        self.here = False

    def _leave(self) -> None:
        self.here = False
        if self.connection is not None:
            if self.world.chance(0.5):
                self.connection.send(
                    frame(
                        "lmsQuizMonitoringStudent",
                        quiz_id=EXAM.quiz_id,
                        quiz_attempt_id="a1",
                        student_id=self.key.student_id,
                        user_status="offline",
                        seq=self.seq + 1,
                        tab_id="tab",
                    )
                )
            self.connection.close(4000)

    def _submit(self) -> None:
        self.submitted = True
        if self.connection is not None and self.here:
            self._report()
        else:
            self.seq += 1  # kept by the page until there is a connection again
            self.world.after(0.5, self._submit_later)

    def _submit_later(self) -> None:
        if self.connection is not None and self.here:
            self._report()
        elif self.here:
            self.world.after(0.5, self._submit_later)

    def _say(self) -> None:
        if self.connection is None or not self.here:
            return
        message_id = f"{self.key.student_id}-{len(self.acked_words) + len(self.words)}"
        self.words[message_id] = self.world.random.choice(("chat", "raise_hand"))
        self._send_words(message_id, self.words[message_id])

    def _send_words(self, message_id: str, kind: str) -> None:
        if self.connection is not None:
            self.connection.send(frame("lmsQuizStudentMessage", message_id=message_id, kind=kind, text="t"))

    def _send_receipt(self, command_id: str, outcome: str) -> None:
        if self.connection is not None:
            self.connection.send(frame("lmsQuizCommandReceipt", command_id=command_id, outcome=outcome))


class Proctor:
    """A dashboard: merges snapshots and updates by version, and repeats its commands until they are acknowledged."""

    def __init__(
        self,
        world: World,
        service: Service,
        name: str,
        students: list[str],
        *,
        joins: float,
        asks_again: bool,
        merge: Callable[[m.View | None, m.View], m.View] = newer,
    ) -> None:
        self.world = world
        self.service = service
        self.principal = Principal("proctor", EXAM.school, name, EXAM[1:], T0 + 9_999)
        self.connection: Any = None
        self.merge = merge
        self.asks_again = asks_again
        self.views: dict[str, m.View] = {}
        self.pages: dict[str, dict[int, list[str]]] = {}
        self.unacked: dict[str, dict[str, Any]] = {}
        self.acked: dict[str, dict[str, Any]] = {}
        self.ordered_at: dict[str, float] = {}
        self.students = students
        dice = world.random
        world.after(joins, self._connect)
        for n in range(dice.randrange(3)):
            world.after(dice.uniform(8, 38), self._order, f"{name}-{n}")
        if asks_again:
            world.after(30, self._ask_again)

    def _connect(self) -> None:
        self.service.connect(self)

    def opened(self, connection: Any) -> None:
        self.connection = connection
        self._watch()

    def _watch(self) -> None:
        self.connection.send(frame("lmsQuizMonitoringProctor", quiz_id=EXAM.quiz_id))

    def _ask_again(self) -> None:
        self.world.after(30, self._ask_again)
        if self.connection is not None:
            self._watch()

    def lost(self, connection: Any) -> None:
        if connection is self.connection:
            self.connection = None
            self.world.after(self.world.random.uniform(0.1, 2), self._connect)

    def refused(self) -> None:
        self._connect()

    def heard(self, connection: Any, action: str, data: dict[str, Any]) -> None:
        if connection is not self.connection:
            return
        if action in ("lmsQuizMonitoringSnapshot", "lmsQuizMonitoringUpdate"):
            for shown in data["participants"]:
                view = msgspec.convert(shown, m.View)
                self.views[view.student_id] = self.merge(self.views.get(view.student_id), view)
        elif action == "ack" and (command_id := data.get("command_id")) in self.unacked:
            self.acked[command_id] = self.unacked.pop(command_id)

    def _order(self, command_id: str) -> None:
        dice = self.world.random
        name = dice.choice(("message", "warn", "flag", "pause", "resume"))
        data: dict[str, Any] = {"command_id": command_id, "quiz_id": EXAM.quiz_id, "command": name, "text": "t"}
        if dice.random() < 0.4:
            data["everyone"] = True
        else:
            data["student_ids"] = [dice.choice(self.students)]
        self.unacked[command_id] = data
        self.ordered_at[command_id] = self.world.now
        self._send_order(command_id)

    def _send_order(self, command_id: str) -> None:
        if command_id not in self.unacked:
            return
        if self.connection is not None:
            self.connection.send(frame("lmsQuizProctorCommand", **self.unacked[command_id]))
        self.world.after(4, self._send_order, command_id)
