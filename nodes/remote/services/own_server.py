"""A Kleinod of the user's own that answers in a paid service's place (nodes/service): the same wire, another
address. It is free unless its owner set a price, and fast to ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..retry import PollPace
from .bfl import Bfl
from .runware import Runware

_NONE = re.compile(r"(?!)")


class OwnRunware(Runware):
    """Runware's wire, answered by the user's own server."""

    name = "own-runware"
    title = "Your server"
    own_path = "/runware"
    key_variable = address_variable = ""
    regions: dict[str, str] = {}
    key_hosts = picture_hosts = _NONE
    poll_pace = PollPace(0.3, 1.3, 3.0)

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        super().estimate_usd(widgets, references)  # for what it refuses
        return 0.0


class OwnBfl(Bfl):
    """BFL's wire, answered by the user's own server."""

    name = "own-bfl"
    title = "Your server"
    own_path = "/bfl"
    key_variable = address_variable = ""
    regions: dict[str, str] = {}
    key_hosts = picture_hosts = _NONE
    poll_pace = PollPace(0.3, 1.3, 3.0)

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        super().estimate_usd(widgets, references)
        return 0.0
