"""Lets a scenario move the wall clock of a server that was started with this folder on PYTHONPATH.

Seconds to add stand in the file that TRUNKLINE_FAULTS_CLOCK names. Monotonic time goes on as it does: that is what a
step of the wall clock looks like.
"""

import os
import time
from pathlib import Path

_file = Path(os.environ["TRUNKLINE_FAULTS_CLOCK"])
_true = time.time


def _moved() -> float:
    try:
        return _true() + float(_file.read_text())
    except (OSError, ValueError):
        return _true()


time.time = _moved
