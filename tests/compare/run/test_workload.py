from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from compare.run.workload import MAX_RETURN_SECONDS, Plan, Schedule, WorkloadError, schedule


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another_one() -> None:
    assert schedule(Plan(seed=7)) == schedule(Plan(seed=7))
    assert schedule(Plan(seed=7)).timeline() != schedule(Plan(seed=8)).timeline()


def test_students_are_spread_evenly_over_exams_and_have_names_of_their_own() -> None:
    made = schedule(Plan(students=10, exams=3))
    assert sorted(Counter(student.quiz_id for student in made.students).values()) == [3, 3, 4]
    assert len({student.student_id for student in made.students}) == 10
    assert len({student.attempt_id for student in made.students}) == 10


def test_a_run_id_keeps_two_runs_apart_without_changing_their_course() -> None:
    one, other = schedule(Plan(run_id="a")), schedule(Plan(run_id="b"))
    assert not set(one.quiz_ids) & set(other.quiz_ids)
    assert [s.steps for s in one.students] == [s.steps for s in other.students]


@pytest.fixture(params=[1, 2, 3, 25, 50, 1000])
def one_exam(request: pytest.FixtureRequest) -> Schedule:
    return schedule(Plan(students=request.param, exams=1))


def test_steps_of_everybody_come_in_order_and_begin_with_the_join(one_exam: Schedule) -> None:
    for student in one_exam.students:
        assert student.steps[0].act == "join"
        assert all(before.at <= after.at for before, after in pairwise(student.steps))


def test_every_part_is_played_as_soon_as_there_are_students_for_it(one_exam: Schedule) -> None:
    played = {student.part for student in one_exam.students}
    wanted = ["is_warned", "vanishes", "returns", "submits", "leaves", "speaks"][: len(one_exam.students)]
    assert played >= set(wanted)


def test_too_few_drop_out_for_a_mass_silence(one_exam: Schedule) -> None:
    dropped = sum(student.part in ("vanishes", "returns") for student in one_exam.students)
    assert dropped < max(10, 0.2 * len(one_exam.students))


def test_who_never_returns_drops_in_the_first_two_fifths(one_exam: Schedule) -> None:
    for student in one_exam.students:
        if student.part == "vanishes":
            assert student.vanishes_at is not None
            assert student.steps[-1].act == "drop"
            assert student.vanishes_at <= 0.4 * one_exam.plan.duration
        else:
            assert student.vanishes_at is None


def test_who_returns_does_so_before_the_server_calls_them_offline(one_exam: Schedule) -> None:
    for student in one_exam.students:
        if student.part == "returns":
            drop, back = (next(s.at for s in student.steps if s.act == act) for act in ("drop", "return"))
            assert 0 < back - drop <= MAX_RETURN_SECONDS


def test_everything_that_happens_once_is_over_when_the_opening_ends() -> None:
    made = schedule(Plan(students=500))
    once = {"join", "drop", "return", "away", "back", "say", "leave"}
    assert all(step.at <= made.opening_ends for student in made.students for step in student.steps if step.act in once)


def test_ticks_keep_the_interval_with_a_jitter_and_go_on_through_the_overtime() -> None:
    made = schedule(Plan(interval=5, duration=60))
    stays = next(student for student in made.students if student.part == "stays")
    ticks = [step.at for step in stays.steps if step.act == "tick"]
    assert all(4.5 <= later - earlier <= 5.5 for earlier, later in pairwise(ticks))
    assert len({round(later - earlier, 3) for earlier, later in pairwise(ticks)}) > 3
    assert ticks[-1] > made.ends - 5.5


def test_nobody_answers_after_submitting_or_after_the_end() -> None:
    for student in schedule(Plan(students=200)).students:
        end = next((step.at for step in student.steps if step.act == "submit"), 30.0)
        assert not any(step.progressed for step in student.steps if step.at >= end)


def test_each_exam_has_one_warning_to_somebody_who_is_there_and_one_proctor_who_rejoins() -> None:
    made = schedule(Plan(students=60, exams=3, proctors_per_exam=2))
    parts = {student.student_id: student.part for student in made.students}
    for quiz_id in made.quiz_ids:
        acts = [step for p in made.proctors if p.quiz_id == quiz_id for step in p.steps]
        warned = [step.student_id for step in acts if step.act == "warn"]
        assert [parts[student_id] for student_id in warned] == ["is_warned"]
        assert Counter(step.act for step in acts) == {"watch": 2, "warn": 1, "drop": 1, "return": 1}


@pytest.mark.parametrize(
    ("plan", "option"),
    [
        (Plan(students=0), "--students"),
        (Plan(students=-3), "--students"),
        (Plan(exams=0), "--exams"),
        (Plan(students=3, exams=4), "--exams"),
        (Plan(proctors_per_exam=0), "--proctors-per-exam"),
        (Plan(interval=0), "--interval"),
        (Plan(interval=float("nan")), "--interval"),
        (Plan(duration=0), "--duration"),
        (Plan(duration=float("inf")), "--duration"),
    ],
)
def test_what_makes_no_exam_is_refused_with_the_option_and_what_to_give(plan: Plan, option: str) -> None:
    with pytest.raises(WorkloadError) as refused:
        schedule(plan)
    assert refused.value.option == option
    assert "give" in str(refused.value)
