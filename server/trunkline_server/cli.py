"""The server's command line: run, serve, check-config.

Exit codes: 0 ended as asked, 1 failed while running, 2 cannot start (wrong configuration, taken port).
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from trunkline_server import __version__, demonstration, workers
from trunkline_server.config import (
    ConfigError,
    LogSettings,
    PageSettings,
    ProviderSettings,
    Settings,
    load,
    split_address,
)
from trunkline_server.embedded import Embedded, Unavailable, find
from trunkline_server.reloading import Load
from trunkline_server.supervisor import Supervisor
from trunkline_server.targets import provider_settings

app = typer.Typer(
    name="trunkline-server",
    help="Every LLM provider behind one typed gRPC contract.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="TRUNKLINE_CONFIG",
        help="YAML file. Without one: providers by their usual key variables.",
    ),
]
ListenOption = Annotated[str | None, typer.Option("--listen", "-l", help="HOST:PORT, default 127.0.0.1:50051.")]
PortOption = Annotated[
    int | None, typer.Option("--port", "-p", min=1, max=65_535, help="Only the port; the host stays as configured.")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Processes that share the port.")]
LocalOption = Annotated[bool, typer.Option("--local/--no-local", help="Run the embedded model.")]


@app.command()
def serve(
    config: ConfigOption = None,
    listen: ListenOption = None,
    port: PortOption = None,
    worker_count: WorkersOption = None,
    local: LocalOption = True,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain."""
    settings = _load(config, listen, port, worker_count)
    again = partial(settings_from, config, listen, port, worker_count)
    sys.exit(_serve(settings, _embedded(settings) if local else None, again))


@app.command()
def run(config: ConfigOption = None, listen: ListenOption = None, port: PortOption = None) -> None:
    """Serve, and show a first answer of the embedded model, streamed over gRPC."""
    settings = _load(config, listen, port, None)
    if settings.providers is None:
        # The examples ask the fake models: a first run has them beside the providers whose keys are set.
        found = provider_settings(settings, os.environ)
        settings = settings.model_copy(update={"providers": {**found, "fake": ProviderSettings()}})
    if "log" not in settings.model_fields_set:
        # Log lines would stand in the middle of the answer.
        settings = settings.model_copy(update={"log": LogSettings(level="warning", format="text")})
    if not workers.is_free(settings.listen):
        typer.echo(workers.bind_help(settings), err=True)
        sys.exit(2)
    if "page" not in settings.model_fields_set and settings.traces.backends:
        settings = settings.model_copy(update={"page": _first_page()})
    page = f"http://{settings.page.host}:{settings.page.port}/" if settings.page is not None else ""
    host, chosen = split_address(settings.listen)
    embedded = _embedded(settings)
    if embedded is None or not chosen:
        if page:
            typer.echo(f"The calls and their cost: {page}")
        sys.exit(_serve(settings, embedded))
    model = f"local/{embedded.endpoint.model}"
    sys.exit(demonstration.beside(host, chosen, model, lambda: _serve(settings, embedded), page=page))


def _first_page() -> PageSettings:
    """A page on the usual port, or on a free one if that is taken."""
    page = PageSettings()
    if workers.is_free(f"{page.host}:{page.port}"):
        return page
    with workers.reserve(f"{page.host}:0") as free:
        return PageSettings(port=free.getsockname()[1])


@app.command("check-config")
def check_config(config: ConfigOption = None, listen: ListenOption = None, port: PortOption = None) -> None:
    """Check the configuration and show it, without secrets."""
    typer.echo(_load(config, listen, port, None).model_dump_json(indent=2, exclude_none=True))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _load(config: Path | None, listen: str | None, port: int | None, worker_count: int | None) -> Settings:
    try:
        return settings_from(config, listen, port, worker_count)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def settings_from(config: Path | None, listen: str | None, port: int | None, worker_count: int | None) -> Settings:
    """What the file, the environment and the command line say. Raises ConfigError."""
    settings = load(config, listen=listen, workers=worker_count)
    if port is None:
        return settings
    host, _ = split_address(settings.listen)
    return load(config, listen=f"[{host}]:{port}" if ":" in host else f"{host}:{port}", workers=worker_count)


def _serve(settings: Settings, embedded: Embedded | None, again: Load | None = None) -> int:
    endpoint = embedded.start() if embedded is not None else None
    try:
        if settings.workers == 1:
            return workers.run_one(settings, os.environ, endpoint, again)
        return Supervisor(settings, os.environ, endpoint, again).run()
    except ConfigError as error:
        typer.echo(str(error), err=True)
        return 2
    finally:
        if embedded is not None:
            embedded.stop()


def _embedded(settings: Settings) -> Embedded | None:
    """The embedded model, not started; None, with a line that says why, where it cannot run."""
    wanted = settings.local
    if not wanted.enabled:
        return None
    try:
        model = find(wanted.model_path, wanted.model_name)
    except Unavailable as error:
        typer.echo(f"the embedded model is left out: {error}", err=True)
        return None
    return Embedded(
        model,
        context_tokens=wanted.context_tokens,
        slots=wanted.slots,
        threads=wanted.threads,
        note=lambda text: typer.echo(text, err=True),
    )


def main() -> None:
    """The entry point."""
    app()
