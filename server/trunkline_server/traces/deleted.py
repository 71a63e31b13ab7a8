"""Ids of deleted records that a spool may still hold: an empty file for each, in every server's folder of a state
directory. They outlive every process, and are kept as long as anything older lies in that spool.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trunkline_server.traces.slots import slots

#: Seconds for what ended before a deletion to come from its process into the journal.
LATE = 10.0


class Deleted:
    """The ids in one folder, as the delivery sees them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = 0
        #: When each was seen at first, in monotonic seconds.
        self._seen: dict[str, float] = {}
        #: Number of the first trace in the outbox that is newer for certain, and the id.
        self._kept: deque[tuple[int, str]] = deque()

    def among(self, ids: Iterable[str]) -> list[str]:
        """Those of them that were deleted."""
        # Asked of the folder each time: whoever deletes looks into the backends when its file is there.
        try:
            with os.scandir(self._folder) as found:
                if next(found, None) is None:
                    return []
        except FileNotFoundError:
            return []
        folder = str(self._folder)
        return [one for one in ids if os.path.exists(f"{folder}/{one}")]  # noqa: PTH110  # a Path costs five times that

    def forget(self, first: int, following: int) -> None:
        """Leaves out those that nothing is older than. To be called now and then while no journal holds the end of a
        call: `first` is the number of the oldest trace that may be delivered, `following` of the next one that comes.
        """
        with suppress(OSError):
            self._look()
        late = time.monotonic() - LATE
        while self._seen and (name := next(iter(self._seen))) and self._seen[name] < late:
            del self._seen[name]
            self._kept.append((following, name))
        while self._kept and self._kept[0][0] <= first:
            with suppress(OSError):
                (self._folder / self._kept[0][1]).unlink(missing_ok=True)
            self._kept.popleft()

    def _look(self) -> None:
        changed = self._folder.stat().st_mtime_ns
        if changed != self._changed:
            known = {name for _, name in self._kept}
            with os.scandir(self._folder) as found:
                for entry in found:
                    if entry.name not in known:
                        self._seen.setdefault(entry.name, time.monotonic())
            self._changed = changed


def tell(state_dir: Path, trace_id: str) -> None:
    """Has every spool of a state directory leave out a record, from now on. Raises OSError."""
    for slot in slots(state_dir):
        with suppress(FileNotFoundError):  # all of it was delivered, and it is gone
            slot.deleted.mkdir(exist_ok=True, mode=0o700)
            (slot.deleted / trace_id).touch(0o600)
