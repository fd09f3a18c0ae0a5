"""``workerbee dashboard``: the page, from wherever the database can be reached."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from pathlib import Path

import click

from workerbee.cli.database import dsn_option


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=8787, show_default=True, help="0: any free one.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; others than this machine see it."
)
@click.option("--read-only", is_flag=True, help="Show everything, change nothing.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name under which a proxy shows the page.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A token of 20 characters or more that lasts, for programs such as Prometheus.",
)
@dsn_option
def dashboard(
    port: int, host: str, hosts: tuple[str, ...], token_file: Path | None, dsn: str | None, *, read_only: bool
) -> None:
    """Show in a browser how all jobsets go, why jobs fail, what runs and who works; retry, cancel, pause, drop.

    It reads the database, so it runs wherever that can be reached, and ends without a trace.
    """
    try:
        import jinja2  # noqa: F401, PLC0415
        import starlette  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ImportError as error:
        raise click.ClickException(f"it needs {error.name}: pip install 'workerbee-executor[dashboard]'") from None
    from workerbee import server  # noqa: PLC0415 (loads the driver)
    from workerbee.dashboard import app  # noqa: PLC0415
    from workerbee.dashboard.safety import Tokens  # noqa: PLC0415

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("workerbee.dashboard").setLevel(logging.INFO)
    lasting = None if token_file is None else _lasting(token_file)
    with server.of_command(dsn) as found:
        try:
            listening = app.listen(host, port)
        except OSError as error:
            raise click.ClickException(
                f"can't listen on {host}:{port}: {error.strerror}; --port names another"
            ) from None
        with listening:
            port = listening.getsockname()[1]
            tokens = Tokens(lasting, lambda token: _say_again(host, port, token))
            _say(repr(found), host, port, tokens.once, read_only=read_only, hosts=hosts)
            hosts = (*hosts, host, *_public_hosts())
            made = app.application(
                found.dsn, server=repr(found), tokens=tokens, port=port, hosts=hosts, read_only=read_only
            )
            app.web_server(made).run(sockets=[listening])


def _lasting(path: Path) -> str:
    token = path.read_text("utf-8").strip()
    if len(token) < 20 or not token.isascii() or not token.isprintable():
        raise click.ClickException(f"{path} has to hold one line of 20 ASCII characters or more")
    return token


def _address(host: str, port: int, token: str) -> str:
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host  # noqa: S104
    return f"http://{name}:{port}/login?token={token}"


def _say(server: str, host: str, port: int, token: str, *, read_only: bool, hosts: tuple[str, ...]) -> None:
    click.echo(f"Workerbee's page of {server}" + ", which only reads" * read_only)
    click.echo(f"  here         {_address(host, port, token)}")
    click.echo(f"  from afar    ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{os.uname().nodename}")
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if prefix is not None:
        public = _public_hosts()
        hub = f"https://{public[0]}" if public else "https://YOUR-HUB"
        known = "" if public or hosts else "  (with --allow-host YOUR-HUB)"
        click.echo(f"  JupyterHub   {hub}{prefix.rstrip('/')}/proxy/{port}/login?token={token}{known}")
    click.echo("The token is good once, and a new one is printed then. Ctrl-C ends the page.")
    sys.stdout.flush()


def _say_again(host: str, port: int, token: str) -> None:
    click.echo(f"A browser was let in. For another one: {_address(host, port, token)}")
    sys.stdout.flush()


def _public_hosts() -> tuple[str, ...]:
    """The names under which a JupyterHub shows what runs here, where it says so."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    addresses = [os.environ.get(name, "") for name in ("JUPYTERHUB_PUBLIC_URL", "JUPYTERHUB_HOST")]
    return tuple(name for name in (urlsplit(address).hostname for address in addresses) if name)
