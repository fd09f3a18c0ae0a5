"""The sentence that says how a jobset goes, and when it will be done."""

from __future__ import annotations

import pytest

from workerbee.outlook import outlook, percent_of, spelled, still_open
from workerbee.store.seen import Progress

QUARTILES = (1.0, 2.0, 3.0, 9.0)


def progress(**numbers: int) -> Progress:
    return Progress(**dict.fromkeys(Progress._fields, 0) | numbers)


@pytest.mark.parametrize(
    ("n_jobs", "n_open", "percent"),
    [(0, 0, 0), (1766, 1, 99), (1766, 0, 100), (10, 5, 50), (10_000_000, 1, 99), (3, 3, 0)],
)
def test_a_percentage_is_rounded_down(n_jobs: int, n_open: int, percent: int) -> None:
    """It is 100 only if nothing is open."""
    assert percent_of(n_jobs, n_open) == percent


def test_a_finish_is_a_range() -> None:
    """From the quicker to the slower half of what the last jobs took, shared among the runners."""
    view = outlook("study", progress(waiting=40, completed=60), n_bees=2, n_runners=4, quartiles=QUARTILES, longest=0.0)
    assert view.seconds_left == (10.0, 30.0)
    assert "10 s to 30 s to go with 4 runners" in view.sentence


@pytest.mark.parametrize(
    ("longest", "seconds_left", "sentence"),
    [
        (2.9, (1.0, 3.0), "1 s to 3 s to go with 4 runners."),
        (200.0, None, "1 is open, with 4 runners; one job has run for 3.3 min."),
    ],
)
def test_no_finish_is_nearer_than_what_a_job_has_taken_already(
    longest: float, seconds_left: tuple[float, float] | None, sentence: str
) -> None:
    """One that has run so long isn't like the last ones, and nobody knows its end."""
    jobs = progress(running=1, completed=60)
    view = outlook("study", jobs, n_bees=2, n_runners=4, quartiles=QUARTILES, longest=longest)
    assert view.seconds_left == seconds_left
    assert view.sentence.endswith(sentence)


def test_counters_that_somebody_has_changed_are_not_believed() -> None:
    """Where more have ended than there were, nobody says that a negative number of jobs is open."""
    view = outlook("study", progress(running=-17, completed=60), n_bees=1, n_runners=1, quartiles=None, longest=0.0)
    for said in (view.sentence, still_open("study", -17)):
        assert "study nobody knows what is open: rows of" in said
        assert "17" not in said
    assert still_open("study", 1700) == "1,700 jobs of study are still open"


def test_nobody_guesses_from_a_few_jobs() -> None:
    """Until ten have completed, no finish is given."""
    view = outlook(
        "study", progress(waiting=90, running=1, completed=9), n_bees=1, n_runners=1, quartiles=QUARTILES, longest=0.0
    )
    assert view.seconds_left is None
    assert "91 are open, with 1 runner." in view.sentence


def test_if_nothing_moves_the_sentence_says_why_and_what_helps() -> None:
    """Without a bee, the command that starts one."""
    view = outlook("study", progress(waiting=5), n_bees=0, n_runners=0, quartiles=None, longest=0.0)
    assert view.sentence.startswith("Nobody works on it")
    assert view.advice == "python -m workerbee.bee study"


@pytest.mark.parametrize(
    ("numbers", "sentence", "advice"),
    [
        ({"completed": 3}, "Done: 3 completed.", None),
        ({"completed": 1, "failed": 2}, "Done: 1 completed, 2 failed.", "workerbee failures study"),
        ({"completed": 2, "cancelled": 1}, "Done: 2 completed, 1 cancelled.", None),
        ({}, "study has no jobs yet.", None),
    ],
)
def test_the_end_is_told_with_what_became_of_the_jobs(
    numbers: dict[str, int], sentence: str, advice: str | None
) -> None:
    """If some failed, the command that says why."""
    view = outlook("study", progress(**numbers), n_bees=0, n_runners=0, quartiles=None, longest=0.0)
    assert (view.sentence, view.advice) == (sentence, advice)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.012, "12 ms"), (1.0, "1 s"), (59.0, "59 s"), (90.0, "1.5 min"), (7200, "2.0 h"), (172800, "2.0 d")],
)
def test_durations_are_spelled_as_people_say_them(seconds: float, text: str) -> None:
    assert spelled(seconds) == text
