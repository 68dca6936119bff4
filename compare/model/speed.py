"""How fast a machine does the work of a report, so that one can be set against another.

The same few thousand reports are decoded, decided and shown again, on one core, by the code that a worker runs. The fastest of
several rounds counts: the others were disturbed. Run it where the coefficients were measured and on an instance; the quotient is
that instance's *CPU factor*.
"""

import time

from core import messages
from core.decide import decide
from core.events import Addressed
from core.exam import new_exam
from core.identity import Principal
from core.participant import ExamKey, new_participant
from core.routing import Source, route
from core.snapshot import view

REPORTS = 3_000
ROUNDS = 7


def report_ms() -> float:
    """Milliseconds of CPU for 1,000 reports on this machine, one core."""
    key = ExamKey("speed", "exam")
    principal = Principal("student", key.school, "student-1", (key.quiz_id,), 4e9, "attempt-1")
    source = Source("connection-1", 0.0, principal)
    exam = new_exam(key, "ec2", 0.0)
    payloads = [_payload(number) for number in range(REPORTS)]
    best = float("inf")
    for _ in range(ROUNDS):
        record = None
        begun = time.process_time()
        for number, payload in enumerate(payloads):
            now = 1_000.0 + number * 5.0
            routed = route(messages.decode(payload), source, now)
            assert isinstance(routed, Addressed)  # a student's report is addressed to their record
            record = decide(record or new_participant(routed.key, "ec2"), routed.event, exam, now).participant
            messages.encode_value(view(record))
        best = min(best, time.process_time() - begun)
    return best * 1e6 / REPORTS


def _payload(number: int) -> bytes:
    """Figure 4; every second one says something new."""
    return (
        b'{"action":"lmsQuizMonitoringStudent","data":{"quiz_id":"exam","quiz_attempt_id":"attempt-1",'
        b'"student_id":"student-1","user_status":"active","question_answered":%d,"question_total":2000,'
        b'"question_number_current":%d,"student_name":"Student 1","seq":%d,"tab_id":"tab-1","next_ms":5000}}'
        % (number // 2, number // 2 + 1, number + 1)
    )
