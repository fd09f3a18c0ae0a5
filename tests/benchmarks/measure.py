"""The process in which one measurement is made, so that it can neither hang nor change the next one.

What to do comes as JSON on stdin; the figures, or why there are none, go as JSON to the file named there.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from tests.benchmarks.timing import Place


def main() -> None:
    task = json.load(sys.stdin)
    try:
        module = importlib.import_module(task["module"])
    except ImportError as error:
        answer = {"skipped": f"can't be imported here: {error}"}
    else:
        figures = getattr(module, task["function"])(Place(**task["place"]), **task["options"])
        answer = {"figures": figures, "settings": getattr(module, "SETTINGS", "")}
    Path(task["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
