"""Writes how many asyncio tasks of a process have not ended to a file of its own, for as long as it lives: nobody can
count them from outside otherwise.
"""

import asyncio
import os
import threading
import time
from contextlib import suppress
from pathlib import Path


def _count() -> None:
    folder = Path(os.environ["TRUNKLINE_FAULTS_TASKS"])
    # Python 3.12 renamed it.
    tasks = getattr(asyncio.tasks, "_scheduled_tasks", None)
    if tasks is None:
        tasks = asyncio.tasks._all_tasks  # type: ignore[attr-defined]  # nothing public counts those of all loops
    while True:
        time.sleep(0.5)
        with suppress(RuntimeError):  # the set has changed meanwhile
            open_now = sum(not task.done() for task in list(tasks))
            (folder / str(os.getpid())).write_text(str(open_now))


if "TRUNKLINE_FAULTS_TASKS" in os.environ:
    threading.Thread(target=_count, daemon=True).start()
