"""Waiting for an event with an end, fit to be cancelled: `asyncio.wait_for` loses a cancellation that comes
together with its result (Python before 3.12).
"""

from __future__ import annotations

import asyncio


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Return once the event is set, or after so many seconds."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiter}, timeout=seconds)
    finally:
        waiter.cancel()
