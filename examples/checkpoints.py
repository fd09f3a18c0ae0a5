"""A long simulation that writes checkpoints, so that a job whose machine vanishes goes on where it was.

    python examples/checkpoints.py

A job that is run again begins again: only what it has written down is left. So it looks for a checkpoint first, writes
one now and then, under another name that is then changed, and takes it away at the end. Here each job's process is
killed once on its way, as a preempted node would do it.
"""

import json
import os
import signal
import tempfile
from pathlib import Path

from workerbee import WorkerbeeExecutor

N_STEPS = 60


def simulate(job):
    """A ball that bounces, step by step."""
    checkpoint = Path(job["directory"], f"ball_{job['ball']}.json")
    state = {"step": 0, "height": 10.0 + job["ball"], "speed": 0.0, "starts": 0}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
    state["starts"] += 1
    while state["step"] < N_STEPS:
        state["speed"] -= 0.981
        state["height"] += 0.1 * state["speed"]
        if state["height"] < 0:
            state["height"], state["speed"] = -state["height"], -0.9 * state["speed"]
        state["step"] += 1
        if state["step"] % 10 == 0:
            save(checkpoint, state)
        if state["step"] == 35 and state["starts"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    checkpoint.unlink(missing_ok=True)
    return state


def save(checkpoint, state):
    draft = checkpoint.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(state))
    draft.replace(checkpoint)  # all of it or nothing


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        jobs = [{"ball": n, "directory": directory} for n in range(4)]
        with WorkerbeeExecutor(jobset_id="checkpoints") as executor:
            balls = list(executor.map(simulate, jobs))
        assert not list(Path(directory).iterdir())
    print(f"{len(balls)} balls, {sum(ball['starts'] for ball in balls)} starts")
    assert all(ball["step"] == N_STEPS and ball["starts"] == 2 for ball in balls)
    print("each went on at its last checkpoint")
