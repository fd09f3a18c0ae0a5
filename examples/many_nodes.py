"""Many nodes without a master: start this script as often as you like, wherever you like.

    python examples/many_nodes.py & python examples/many_nodes.py & wait

All see the same PostgreSQL (PGHOST names it, else this machine's embedded one). Whichever is first makes
the jobset and fills it; all take jobs from it until none is left; each can die at any moment. A job that
meets an unlucky node is tried again, elsewhere or later.
"""

import os
import random

from workerbee import JobFailedError, JobSet, WorkerbeeExecutor

LIMIT = 200_000
STEP = 4_000


def count_primes(interval):
    if random.random() < 0.05:
        raise JobFailedError("the scratch disk of this node is full")
    low, high = interval["low"], interval["high"]
    sieve = bytearray([1]) * (high - low)
    for n in range(2, int(high**0.5) + 1):
        for multiple in range(max(n * n, -(-low // n) * n), high, n):
            sieve[multiple - low] = 0
    return {"n_primes": sum(sieve) - sum(low <= n < high for n in (0, 1)), "pid": os.getpid()}


if __name__ == "__main__":
    jobset = JobSet("primes")
    if jobset.setup_jobset(ignore_existing_jobset=True):
        jobset.add_jobs([{"low": low, "high": low + STEP} for low in range(0, LIMIT, STEP)])
    jobset.run(count_primes, max_failure_sleep=2)

    with WorkerbeeExecutor(0, jobset_id="primes") as executor:
        done = list(executor.results())
    n_primes = sum(job["n_primes"] for job in done)
    print(f"{n_primes} primes below {LIMIT}, counted by {len({job['pid'] for job in done})} process(es)")
    assert n_primes == 17_984
