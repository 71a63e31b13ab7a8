"""What completions leave behind for those who come later: their events, and the results of request ids.

Kept in this process, and in Redis where one is shared. Bounded in bytes and in time: what no longer fits goes oldest
first.
"""

from trunkline_server.replay.keeper import Bounds, Keeper, Opened, Request, expired
from trunkline_server.replay.shared import SharedKeeper
from trunkline_server.replay.tape import Ahead, Ending, Expired, Source, Tape

__all__ = [
    "Ahead",
    "Bounds",
    "Ending",
    "Expired",
    "Keeper",
    "Opened",
    "Request",
    "SharedKeeper",
    "Source",
    "Tape",
    "expired",
]
