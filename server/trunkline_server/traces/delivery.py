"""The delivery process as the server that starts it sees it."""

from __future__ import annotations

from typing import IO

from trunkline_server.child import Child
from trunkline_server.traces.plan import Plan, encode


class Delivery(Child):
    """Delivers until it is stopped; what is there when it is, it delivers first."""

    def __init__(self, plan: Plan, *, stderr: IO[bytes] | None = None) -> None:
        super().__init__(f"{__package__}.process", encode(plan), stderr=stderr)
