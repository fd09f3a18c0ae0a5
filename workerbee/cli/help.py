"""``workerbee help``: the documentation, from where the package is installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

PAGES = Path(__file__).parents[1] / "docs"
#: Sections that an answer to some words has at the most.
FEW = 5


@click.command()
@click.argument("topic", nargs=-1, metavar="[TOPIC]…")
@click.pass_context
def help(context: click.Context, topic: tuple[str, ...]) -> None:  # noqa: A001 (the command's name)
    """Print a page of the documentation; without a TOPIC, say which pages there are.

    A TOPIC is a page, a command, or words of a heading, such as a message that you have seen.
    """
    words = " ".join(topic)
    page = PAGES / f"{words or 'README'}.md"
    if page.is_file() and page.parent == PAGES:
        show(page.read_text("utf-8"))
    elif found := command(context.find_root(), topic):
        click.echo(found)
    elif sections := [section for page in sorted(PAGES.glob("*.md")) for section in about(page, words)]:
        show("\n".join(sections[:FEW]))
    else:
        names = ", ".join(sorted(page.stem for page in PAGES.glob("*.md")))
        raise click.UsageError(f"no page, command or heading is about {words!r}; the pages are {names}")


def command(root: click.Context, names: tuple[str, ...]) -> str | None:
    """The help of the command with this name; None if there is none."""
    context, found = root, root.command
    for name in names:
        child = found.get_command(context, name) if isinstance(found, click.Group) else None
        if child is None:
            return None
        context, found = click.Context(child, info_name=name, parent=context), child
    return found.get_help(context)


def about(page: Path, words: str) -> Iterator[str]:
    """The sections of a page in whose heading these words are, or which are a message that is like them."""
    text = page.read_text("utf-8")
    for section in re.split(r"(?m)^(?=#+ )", re.sub(r"(?ms)^```.*?^```\n", _kept, text)):
        heading = section.partition("\n")[0].lstrip("# ")
        message = ".*".join(re.escape(piece.strip()) for piece in heading.split("…"))
        is_meant = words.lower() in heading.lower()
        if is_meant or ("…" in heading and len(heading) > 20 and re.search(message, words)):
            yield section.replace("\0", "#")


def _kept(block: re.Match[str]) -> str:
    """A block of code, whose comments are no headings."""
    return block[0].replace("#", "\0")


def show(text: str) -> None:
    """A page as a terminal shows it best; else as it is."""
    text = re.sub(r"<!--.*?-->\n?", "", text)
    if not sys.stdout.isatty():
        click.echo(text)
        return
    from rich.console import Console  # noqa: PLC0415 (slow to load)
    from rich.markdown import Markdown  # noqa: PLC0415

    console = Console()
    with console.capture() as drawn:
        console.print(Markdown(text))
    click.echo_via_pager(drawn.get())
