"""serve."""

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from scaleseg.cli.engines import Device, EngineName, MaxMemory, Precision, bytes_of
from scaleseg.cli.output import say
from scaleseg.errors import UserError

__all__ = ["add_to"]

NEEDS = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
TOKEN = "SCALESEG_TOKEN"


def add_to(app: typer.Typer) -> None:
    """Hang this verb on the app."""
    app.command(epilog="Try: scaleseg serve voc-animals-lite")(serve)


def serve(
    checkpoints: Annotated[
        list[str], typer.Argument(help="Checkpoint folders, bundled names, or Hub ids; the first is the default.")
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all, which others can reach.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A name that the server is called by, too; as often as needed.", show_default=False
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the token that clients must give; or set {TOKEN}.", show_default=False),
    ] = None,
    device: Device = "auto",
    engine: EngineName = "torch",
    precision: Precision = "auto",
    max_memory: MaxMemory = None,
    max_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Of one request, such as 32MB.")] = "32MB",
    max_pixels: Annotated[int, typer.Option(min=1, help="Of one image.")] = 40_000_000,
    queue: Annotated[int, typer.Option(min=1, help="Requests at once; more are asked to come again.")] = 32,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images looked at together, at most (1 on a CPU, else 8).", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one image may take.")] = 120.0,
) -> None:
    """Serve models: a page to look at them, and an API for programs."""
    missing = [project for module, project in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise UserError(
            f"serve needs {', '.join(missing)}, which are not installed; run: pip install 'scaleseg[serve]'"
        )
    from scaleseg.engines import Plan
    from scaleseg.server import Limits, Settings, hosts_of, is_loopback, load_models, open_socket
    from scaleseg.server import serve as run

    token, size, memory = _token(token_file), _size(max_bytes), bytes_of(max_memory)
    limits = Limits(
        bytes=size, bytes_in_flight=max(Limits.bytes_in_flight, size), pixels=max_pixels, queue=queue, seconds=timeout
    )
    hosts = hosts_of(host, loopback=is_loopback(host), allowed=allow_host or ())
    with open_socket(host, port) as listening:  # before models are loaded, which takes seconds
        if not is_loopback(host) and token is None:
            say(
                f"warning: --host is {host} and there is no token: everybody who reaches this machine may use it; "
                f"give --token-file, or set {TOKEN}",
                error=True,
            )
        models = load_models(checkpoints, device=device, plan=Plan(engine, precision), max_memory=memory, say=say)
        ended_by = run(models, Settings(limits, token, hosts, batch, memory), listening, say=say)
    if ended_by == signal.SIGINT:
        raise KeyboardInterrupt


def _token(path: Path | None) -> str | None:
    """The token of the file, or of the environment; UserError for an empty or unreadable one."""
    if path is None:
        text, where = os.environ.get(TOKEN), TOKEN
    else:
        where = f"--token-file {path}"
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no plain text"
            raise UserError(f"{where} cannot be read ({reason}); give a file that holds the token alone") from error
    if text is None:
        return None
    token = text.strip()
    if not token or not token.isprintable() or " " in token or not token.isascii():
        raise UserError(
            f"{where} holds no token; give one line of letters and digits, such as openssl rand -hex 24 makes"
        )
    return token


def _size(text: str) -> int:
    from scaleseg.engines import parse_bytes

    try:
        return parse_bytes(text)
    except UserError:
        raise UserError(
            f"--max-bytes is {text!r}; give a number above 0 and MB, MiB, GB or GiB, such as 32MB"
        ) from None
