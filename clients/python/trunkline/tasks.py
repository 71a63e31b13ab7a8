"""Whose cancellation it is."""

import asyncio


def is_task_cancelled() -> bool:
    """Is the running task being cancelled? If not, gRPC raised CancelledError because somebody closed the call."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
