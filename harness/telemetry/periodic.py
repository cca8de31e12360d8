"""The clock of whatever is sampled: absolute deadlines, so that intervals don't add up their lateness."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


async def every(interval_s: float, sample: Callable[[], Awaitable[None] | None], *, at_once: bool = False) -> None:
    """Sample at each deadline until cancelled; a deadline that passes during a sample is left out.

    Args:
        at_once: begin now instead of one interval from now.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + (0.0 if at_once else interval_s)
    while True:
        await asyncio.sleep(due - loop.time())
        if (sampling := sample()) is not None:
            await sampling
        late = max(0.0, loop.time() - due)
        due += interval_s * (1 + late // interval_s)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a sampling task and wait until it is over."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
