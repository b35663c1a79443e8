"""Where a suspended asyncio task stands."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from types import FrameType


def stack_of(task: asyncio.Task[None]) -> str:
    """Show where a suspended task stands: the functions that await each other."""
    frames: list[FrameType] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        waiting = getattr(waiting, "cr_await", None) or getattr(
            waiting, "gi_yieldfrom", None
        )
    summary = traceback.StackSummary.extract((each, each.f_lineno) for each in frames)
    return "".join(summary.format()).strip() or "a place that can't be seen"
