"""Whether ``python -m tests.mutation`` still speaks of the code that is there."""

from __future__ import annotations

import pytest

from tests.bees import PROJECT
from tests.mutation.mutants import MUTANTS, Mutant
from tests.mutation.page import PAGE


@pytest.mark.parametrize("mutant", [*MUTANTS, *PAGE], ids=lambda mutant: mutant.guard)
def test_a_mutant_finds_its_guard_and_its_tests(mutant: Mutant) -> None:
    """The text that it changes is in its place, and the tests that are to notice exist."""
    text = (PROJECT / "workerbee" / mutant.file).read_text("utf-8")
    assert mutant.applied(text) != text
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (PROJECT / "tests" / file).read_text("utf-8")
