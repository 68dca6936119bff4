"""The domain: who is taking an exam, what happened to them, and what a proctor should see.

A *participant* is one student in one exam, one immutable record. A shell (there is one behind each transport) runs this loop:

    record   = store.load(key) or new_participant(key, exam.here)
    decision = decide(record, event, exam, now)
    for each SetDeadline in decision.effects: set it          # before the save
    store.save(record, decision.participant, decision.entries) # atomic; lost race: load and decide again
    perform the other effects, in their order; the ack is last

Frames become events in `routing.route`; `decide` and `decide_exam` turn events into decisions. Nothing here reads a clock, opens
a socket or imports an adapter. Read on in `participant`, `events`, `effects`, `decide`, `decide_exam`; the rules of the single
axes are in `lifecycle`, `presence`, `attention` and `incidents`, the wire in `messages`, what proctors see in `snapshot`.
"""

from core.decide import Decision, decide
from core.decide_exam import ExamDecision, decide_exam
from core.exam import Exam, new_exam
from core.participant import ExamKey, Participant, ParticipantKey, new_participant

__all__ = [
    "Decision",
    "Exam",
    "ExamDecision",
    "ExamKey",
    "Participant",
    "ParticipantKey",
    "decide",
    "decide_exam",
    "new_exam",
    "new_participant",
]
