"""Which policies there are. A new one is a file in this folder and a name in this list."""

from __future__ import annotations

from dataclasses import replace

from ...base.sentences import Sentence, say
from ...base.values import Acceleration
from ..plan import shorten_sigmas
from .dual_block import DualBlock
from .first_block import FirstBlock
from .forecast import Forecast
from .guidance import GuidanceReuse
from .policy import Policy, RunFacts
from .references import ReferenceReuse
from .tea import Tea

POLICIES: list[type[Policy]] = [Forecast, FirstBlock, DualBlock, Tea, GuidanceReuse, ReferenceReuse]
"""In the order in which a run asks them and a report names them."""


def list_wanted(settings: Acceleration | None) -> list[type[Policy]]:
    """The policies these settings ask for; none leaves a model the very object it is."""
    return [] if settings is None else [policy for policy in POLICIES if policy.is_wanted(settings)]


def shorten_run(settings: Acceleration, run: RunFacts) -> tuple[Acceleration, RunFacts, Sentence]:
    """Settings and run as they shall be where a policy is worse than fewer steps of the run's own solver.

    Then the run takes those, the rest of the settings stays in force, and the words say so. Else all is as it
    came.
    """
    for policy in list_wanted(settings):
        count = policy.take_fewer_steps(settings, run)
        if count:
            words = say(
                "this solver adds noise in every step that no earlier step foretells: %1 plain steps in the "
                "place of %2 come nearer than skipping some of them",
                count,
                run.steps,
            )
            kept = replace(settings, acceleration="none", speed=0.0)
            return kept, replace(run, sigmas=tuple(shorten_sigmas(run.sigmas, count))), words
    return settings, run, Sentence("")
