"""What several files of unit tests ask for."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator

import pytest

from tests.unit.bomb import Bomb


@pytest.fixture
def bomb() -> Iterator[str]:
    """The pickle of a `Bomb`, in base64."""
    yield base64.b64encode(pickle.dumps(Bomb())).decode()
    Bomb.gone_off = False
