"""Which policies there are. A new one is a file in this folder and a name in this list."""

from __future__ import annotations

from ...base.values import Acceleration
from .dual_block import DualBlock
from .first_block import FirstBlock
from .forecast import Forecast
from .guidance import GuidanceReuse
from .policy import Policy
from .references import ReferenceReuse
from .tea import Tea

POLICIES: list[type[Policy]] = [Forecast, FirstBlock, DualBlock, Tea, GuidanceReuse, ReferenceReuse]
"""In the order in which a run asks them and a report names them."""


def list_wanted(settings: Acceleration | None) -> list[type[Policy]]:
    """The policies these settings ask for; none leaves a model the very object it is."""
    return [] if settings is None else [policy for policy in POLICIES if policy.is_wanted(settings)]
