"""Digests of code: no operand of any instruction is left out, on whatever Python."""

from __future__ import annotations

import argparse
import dataclasses
import dis
import inspect
import json.decoder
import json.scanner
import tarfile
import textwrap
from collections.abc import Iterator
from types import CodeType, ModuleType

import pytest

from workerbee.wire.bytecode import code_parts

#: Longer code only takes longer.
MOST_BYTES = 600
#: Bits of an operand that only help the interpreter to be fast.
HINTS = {"COMPARE_OP"}


def codes(code: CodeType) -> Iterator[CodeType]:
    """This code and that inside it, if it is a function's."""
    if code.co_flags & inspect.CO_OPTIMIZED:
        yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def parts_of_changed(code: CodeType, offset: int) -> tuple[bytes, ...] | None:
    """What the code does with another operand there; None where that would be none."""
    other = bytearray(code.co_code)
    other[offset + 1] ^= 1
    try:
        return code_parts(code.replace(co_code=bytes(other)))
    except (IndexError, KeyError, ValueError):
        return None


@pytest.mark.parametrize("module", [argparse, dataclasses, inspect, json.decoder, json.scanner, tarfile, textwrap])
def test_every_operand_counts(module: ModuleType) -> None:
    """So that no other code is taken for the same."""
    source = inspect.getsource(module)
    missed = {}
    for code in codes(compile(source, "module", "exec")):
        if len(code.co_code) > MOST_BYTES:
            continue
        for step in dis.get_instructions(code):
            if step.arg is None or step.arg > 255 or step.opname in HINTS:
                continue
            if parts_of_changed(code, step.offset) == code_parts(code):
                missed[step.opname] = f"{code.co_name}, {step.offset}: {step.argrepr}"
    assert not missed
