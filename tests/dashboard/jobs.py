"""What the jobs of a jobset do that is looked at in a browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def measure(input_data: dict[str, Any]) -> dict[str, Any]:
    """Take some time, or wait for a file; fail as long as another one isn't there."""
    print(f"measuring {input_data['star']}")
    time.sleep(input_data.get("seconds", 0.02))
    while (gate := input_data.get("gate")) and not Path(gate).exists():
        time.sleep(0.02)
    if (mended := input_data.get("mended")) and not Path(mended).exists():
        raise ValueError(f"no star at {input_data['star']}, 17")
    return {"flux": 2.5 * input_data["star"]}
