"""Pages of Markdown taken apart: blocks of code, headings, links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
#: Every page that is written for users, README first.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```\n?(\s*)")
_HEADING = re.compile(r"(?m)^(#+) (.*)$")
_LINK = re.compile(r"\[(?:[^\]]|`[^`]*`)*?\]\(([^)\s]+)\)|<(https?://[^>]+)>")


class Block(NamedTuple):
    """A block of code: where it begins, its language, and what it says is printed (None: it doesn't say)."""

    line: int
    language: str
    code: str
    expected: str | None = None

    @property
    def file(self) -> str | None:
        """The file that a script is to be saved as, by the comment in its first line."""
        named = re.match(r"# (\w+\.py)\n", self.code)
        return named[1] if named else None


def blocks(text: str) -> list[Block]:
    """The blocks of a page in their order; one of ``text`` right after another is what that prints."""
    found: list[Block] = []
    end_of_last = -1
    for match in _FENCE.finditer(text):
        language, code = match[1], match[2]
        if language == "text" and match.start() == end_of_last:
            found[-1] = found[-1]._replace(expected=code)
        else:
            found.append(Block(text.count("\n", 0, match.start()) + 2, language, code))
        end_of_last = match.end()
    return found


def prose(text: str) -> str:
    """The page without its blocks."""
    return _FENCE.sub("\n", text)


def headings(text: str) -> list[str]:
    """The texts of the headings."""
    return [match[2] for match in _HEADING.finditer(prose(text))]


def anchor(heading: str) -> str:
    """What a heading is called in a link, as the usual hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(text: str) -> list[str]:
    """The targets of all links and pictures."""
    return [match[1] or match[2] for match in _LINK.finditer(re.sub(r"`[^`\n]+`", "", prose(text)))]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its head."""
    part = text.partition(f"# {heading}\n")[2]
    rows = re.search(r"(?m)(^\|.*\n)+", part)
    lines = rows[0].splitlines()[2:] if rows else []
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def differences(expected: str, said: str) -> str | None:
    """Where what was printed isn't what the page says: … stands for anything, alone in a line for any lines."""
    pattern = ""
    for line in expected.strip().splitlines():
        words = " ".join(line.split())
        pattern += r"(?:.*\n)*?" if words == "…" else re.escape(words).replace("…", ".*") + r" *\n"
    found = "".join(" ".join(line.split()) + "\n" for line in said.strip().splitlines())
    return None if re.fullmatch(pattern, found) else f"the page says:\n{expected}\nand it was:\n{said}"
