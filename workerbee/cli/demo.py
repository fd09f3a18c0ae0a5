"""``workerbee demo``: a grid search as a durable jobset, from nothing to the best parameters."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import click

from workerbee import resources
from workerbee.logs import print_to_stdout

if TYPE_CHECKING:
    from rich.console import Console

Parameters = dict[str, Any]

JOBSET = "workerbee_demo"
N_FOLDS = 3
GRID: dict[str, list[Any]] = {
    "C": [0.1, 0.3, 1, 3, 10, 30],
    "gamma": [0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5],
    "kernel": ["poly", "rbf"],
}


def grid() -> list[Parameters]:
    """Every combination, in the order in which scikit-learn's ParameterGrid has them."""
    return [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]


def evaluate(parameters: Parameters) -> float:
    """The mean accuracy over the folds of a support vector classifier of the bundled digits."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (only who runs jobs needs it)
    from sklearn.model_selection import cross_val_score  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    images, digits = load_digits(return_X_y=True)
    return float(cross_val_score(SVC(**parameters), images / 16, digits, cv=N_FOLDS).mean())


@click.command()
@click.option("--jobset", "jobset_id", help=f"Where the jobs are kept (default: {JOBSET}).")
@click.option("--workers", type=click.IntRange(0), default=resources.cores(), show_default=True, help="Local runners.")
def demo(jobset_id: str | None, workers: int) -> None:
    """Search for a classifier's best parameters, by jobs that outlive this command.

    Interrupt it and run it again: it goes on where it was. Once all is done, it only reads the results.
    """
    sklearn = _version_of_sklearn()
    from rich.console import Console  # noqa: PLC0415 (slow to load, and other commands do without)

    from workerbee.errors import KeyMismatchError  # noqa: PLC0415 (loads what --help does without)

    console = Console(highlight=False, soft_wrap=True)
    print_to_stdout(logging.getLogger("workerbee"))
    try:
        try:
            _search(console, jobset_id or JOBSET, workers, sklearn)
        except KeyMismatchError as error:  # another user's, or that of a key that is lost
            if jobset_id is not None or error.ours is None:
                raise
            own = f"{JOBSET}_{error.ours[:8]}"
            console.print(f"The jobset {JOBSET} was signed with another key, so {own} is taken.")
            _search(console, own, workers, sklearn)
    except KeyboardInterrupt:
        console.print("Interrupted. What is finished is stored; run the same command again to go on.")
        raise SystemExit(130) from None


def _version_of_sklearn() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (slow to load, for --help too)

    try:
        return version("scikit-learn")
    except PackageNotFoundError:
        raise click.ClickException(
            "the demo needs scikit-learn, which isn't installed: pip install scikit-learn"
        ) from None


def _search(console: Console, jobset_id: str, workers: int, sklearn: str) -> None:
    from workerbee import WorkerbeeExecutor  # noqa: PLC0415 (loads the driver)

    began = time.monotonic()
    candidates = grid()
    with WorkerbeeExecutor(workers, jobset_id=jobset_id) as executor:
        console.print(
            f"{len(candidates)} candidates for a classifier of handwritten digits, {N_FOLDS} folds each; "
            f"{workers} local runners"
        )
        before = executor.progress().completed
        # Another scikit-learn may find something else.
        scores = executor.with_options(version=sklearn).map(evaluate, candidates)
        found = list(_shown(console, zip(candidates, scores, strict=True), len(candidates)))
        computed = executor.progress().completed - before
    parameters, score = max(found, key=lambda pair: pair[1])
    console.print(f"Best: [bold]{_spelled(parameters)}[/bold], with an accuracy of [bold]{score:.4f}[/bold]")
    console.print(
        f"{computed} computed now and {len(candidates) - computed} found in the jobset {jobset_id}, "
        f"in {time.monotonic() - began:.1f} s. "
        + ("Run it again: nothing is computed twice." if computed else "Nothing was computed twice.")
    )


def _shown(
    console: Console, found: Iterable[tuple[Parameters, float]], total: int
) -> Iterator[tuple[Parameters, float]]:
    """Pass everything through, with a live line on a terminal, and else a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("best so far {task.fields[best]:.4f}"),
        TimeElapsedColumn(),
    )
    best = 0.0
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, best=best)
        for n, (parameters, score) in enumerate(found, 1):
            best = max(best, score)
            progress.update(task, advance=1, best=best)
            if progress.disable and n % (total // 4) == 0:
                console.print(f"{n}/{total}, best so far {best:.4f}")
            yield parameters, score


def _spelled(parameters: Parameters) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())
