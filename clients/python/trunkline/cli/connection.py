"""The options that all commands share, and the client that they make."""

from dataclasses import dataclass

import typer

from trunkline import Client, Tls
from trunkline.cli import problems


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the gateway is and how to speak to it."""

    address: str
    api_key: str | None
    tls: bool | Tls | None
    timeout: float | None

    def client(self) -> Client:
        """Ends the command where the options cannot work: an address, a key, a file that is not there."""
        try:
            return Client(self.address, api_key=self.api_key, tls=self.tls, connections=1)
        except (ValueError, OSError) as error:
            problems.errors.print(f"error: {error}", style="red")
            raise typer.Exit(problems.USAGE) from None
