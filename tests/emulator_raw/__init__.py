"""A second Runware and BFL, so that no belief of ours is checked only against itself.

Written from the two documents of the services alone, on raw sockets: it shares no code with the pack and none
with `tests/emulator`. Each request can be scripted (`Turn`), each job planned (`Plan`), and `accepted` counts
what would be on the bill.

    with RawEmulator(key) as there:
        there.script("runware.poll", Turn(status=503), Turn(body=b"null"))
        there.plan(Plan(items=("picture", "failure"), after=2))
        ...
        assert len(there.accepted) == 1

Occasions: runware.submit, runware.poll, runware.other, bfl.submit, bfl.poll, bfl.credits, picture, unknown.
"""

from .book import Accepted, Plan
from .emulator import RawEmulator
from .picture import read_pixels
from .wire import Exchange, Turn

__all__ = ["Accepted", "Exchange", "Plan", "RawEmulator", "Turn", "read_pixels"]
