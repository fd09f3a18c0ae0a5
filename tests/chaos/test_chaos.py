"""Chaos in every run of the tests; for longer, ``python -m tests.chaos`` or ``pytest -m soak``."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.bees import PROJECT


def verdict(minutes: float, seed: int, *options: str) -> tuple[int, str]:
    """Exit status and output of a run."""
    command = [sys.executable, "-m", "tests.chaos", "--minutes", str(minutes), "--seed", str(seed), *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(420)
def test_half_a_minute_of_chaos() -> None:
    """Nothing is lost, doubled or changed; another seed each time, which a failure shows."""
    status, output = verdict(0.5, random.randrange(1_000_000))
    assert status == 0, output


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ten_minutes_of_chaos(seed: int) -> None:
    """Three runs of these are the proof."""
    status, output = verdict(10, seed)
    assert status == 0, output


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chaos_with_large_values(seed: int) -> None:
    """Of 1 KB to 50 MB; arrays of the calls are looked at by their jobs."""
    status, output = verdict(2, seed, "--largest", "50000000", "--rate", "60")
    assert status == 0, output


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_chaos_with_large_values_in_files(seed: int) -> None:
    """None of them is lost, changed or left over after the jobset was dropped."""
    status, output = verdict(2, seed, "--largest", "50000000", "--rate", "60", "--files")
    assert status == 0, output
