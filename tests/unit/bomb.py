"""A value that leaves a mark where it is unpickled."""

from __future__ import annotations

from typing import Any


class Bomb:
    """Its pickle sets ``gone_off``."""

    gone_off = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "gone_off", True)
