"""The command line `trunkline`. Needs the extra `cli`."""

import io
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a letter is no reason to stop
    app()
