"""The command line `trunkline`. Needs the extra `cli`."""

import sys


def main() -> None:
    """Entry point; says which extra is missing rather than failing to import it."""
    try:
        from trunkline.cli.commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        sys.stderr.write("trunkline: the command line needs typer and rich: pip install 'trunkline-client[cli]'\n")
        sys.exit(2)
    app()
