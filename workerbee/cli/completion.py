"""``workerbee completion``: what shells complete."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete these commands.

    In bash and zsh: eval "$(workerbee completion bash)"; in fish: workerbee completion fish | source.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 (few need it)

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 (a choice of click's own)
    click.echo(kind(context.find_root().command, {}, "workerbee", "_WORKERBEE_COMPLETE").source())
