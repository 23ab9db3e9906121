"""Runware's scheduler names, each with the ComfyUI sampler and the sigmas that stand for it on a flow model.

Names and order are the API's enum (FLUX.2 [klein] 4B Base, parameter `scheduler`), so a graph can move
between the local sampler and the remote node without losing its choice.

EXACT: the same update on the same sigmas.
CLOSEST: the same family; the details differ, mostly in how the solver counts time.
NONE: the name makes no sense for a flow model; it stays on offer, and the report says what ran.
OWN: not in the enum; only the local sampler has it.

Every pair here was run on an exact two-component flow with 1 to 50 steps and stays within the data. ComfyUI's
`ddpm`, `res_multistep_ancestral` and the sigmas `normal` and `ddim_uniform` do not, so they are used nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from .errors import InputError
from .sentences import join, say

EXACT = "exact"
CLOSEST = "closest"
NONE = "not meaningful"
OWN = "Kleinod's own"

DEFAULT_SCHEDULER = "Default"


@dataclass(frozen=True)
class Solver:
    """A sampler by ComfyUI's name.

    `calls` 2: two model calls in every step but the last. `first_order_below`: with fewer steps than this the
    solver has no valid step and Euler, which then gives the same result, runs instead.
    """

    sampler: str
    note: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    calls: int = 1
    first_order_below: int = 1

    def model_calls(self, steps: int) -> int:
        """Model calls of one picture; guidance above 1 makes each for both prompts."""
        return steps if self.calls == 1 else 2 * steps - 1


@dataclass(frozen=True)
class Scheduler:
    """One name of the enum. `note` is a sentence for the report, empty where there is nothing to say."""

    name: str
    solver: Solver
    rule: str
    flag: str
    note: str

    def solver_for(self, steps: int) -> Solver:
        """The solver that can take this number of steps."""
        return self.solver if steps >= self.solver.first_order_below else EULER


EULER = Solver("euler")
DDIM = Solver("ddim", "On a flow model DDIM without added noise is Euler.")
EULER_ANCESTRAL = Solver(
    "euler_ancestral", "Uses the form for flow models, adding fresh noise at every step."
)
HEUN = Solver("heun", "Two model calls a step: twice the time of Euler.", calls=2)
DPM_2 = Solver("dpm_2", "Two model calls a step: twice the time of Euler.", calls=2)
DPM_2_ANCESTRAL = Solver(
    "dpm_2_ancestral",
    "Two model calls a step, and fresh noise at every step, in the form for flow models.",
    calls=2,
)
LMS = Solver("lms", "Fourth-order Adams in sigma.")
IPNDM = Solver("ipndm", "Fourth-order Adams-Bashforth on the velocity, without PNDM's Runge-Kutta start.")
DEIS = Solver("deis", "Third order.")
DPMPP_2M = Solver(
    "dpmpp_2m", "Counts time as -log(sigma), not as the log of the flow's signal-to-noise ratio."
)
DPMPP_3M = Solver(
    "dpmpp_3m_sde",
    "The third-order solver of DPM++ 3M SDE with its added noise switched off.",
    options=(("eta", 0.0),),
)
DPMPP_SDE = Solver("dpmpp_sde", "Two model calls a step, and fresh noise at every step.", calls=2)
DPMPP_2M_SDE = Solver("dpmpp_2m_sde", "Adds fresh noise at every step.")
DPMPP_3M_SDE = Solver("dpmpp_3m_sde", "Adds fresh noise at every step; give it more than 10 steps.")
DPMPP_2S = Solver(
    "dpmpp_2s_ancestral",
    "Two model calls a step, its added noise switched off.",
    options=(("eta", 0.0),),
    calls=2,
)
UNIPC = Solver(
    "uni_pc_bh2", "Third order where the steps allow it; ends at sigma 0.001.", first_order_below=2
)
LCM = Solver("lcm")
KLEINOD_FAST = Solver("kleinod_fast")
"""Not one of ComfyUI's: `sampling/fast.py`."""


def _row(
    name: str, solver: Solver, rule: str = "native", flag: str = CLOSEST, note: str | None = None
) -> Scheduler:
    return Scheduler(name, solver, rule, flag, solver.note if note is None else note)


_LCM_NOTE = (
    "LCM is meant for a consistency-distilled model, which Klein is not; it runs, and blurs the picture."
)

_ROWS = (
    _row("DDIM", DDIM),
    _row("DDIMScheduler", DDIM),
    _row(
        "DDPMScheduler",
        EULER_ANCESTRAL,
        flag=NONE,
        note=say("DDPM's noise does not fit a flow model; Euler ancestral in its flow form runs instead."),
    ),
    _row("DEISMultistepScheduler", DEIS),
    _row("Default", EULER, flag=EXACT),
    _row("DPM++", DPMPP_2M),
    _row("DPM++ 2M", DPMPP_2M),
    _row("DPM++ 2M Beta", DPMPP_2M, "beta"),
    _row("DPM++ 2M Exponential", DPMPP_2M, "exponential"),
    _row("DPM++ 2M Karras", DPMPP_2M, "karras"),
    _row("DPM++ 2M SDE", DPMPP_2M_SDE),
    _row("DPM++ 2M SDE Beta", DPMPP_2M_SDE, "beta"),
    _row("DPM++ 2M SDE Exponential", DPMPP_2M_SDE, "exponential"),
    _row("DPM++ 2M SDE Karras", DPMPP_2M_SDE, "karras"),
    _row("DPM++ 2M SDE Uniform", DPMPP_2M_SDE, "uniform"),
    _row("DPM++ 2M Uniform", DPMPP_2M, "uniform"),
    _row("DPM++ 3M", DPMPP_3M),
    _row("DPM++ 3M Beta", DPMPP_3M, "beta"),
    _row("DPM++ 3M Exponential", DPMPP_3M, "exponential"),
    _row("DPM++ 3M Karras", DPMPP_3M, "karras"),
    _row("DPM++ 3M SDE Uniform", DPMPP_3M_SDE, "uniform"),
    _row("DPM++ 3M Uniform", DPMPP_3M, "uniform"),
    _row("DPM++ Beta", DPMPP_2M, "beta"),
    _row("DPM++ Exponential", DPMPP_2M, "exponential"),
    _row("DPM++ Karras", DPMPP_2M, "karras"),
    _row("DPM++ SDE", DPMPP_SDE),
    _row("DPM++ SDE Beta", DPMPP_SDE, "beta"),
    _row("DPM++ SDE Exponential", DPMPP_SDE, "exponential"),
    _row("DPM++ SDE Karras", DPMPP_SDE, "karras"),
    _row("DPM++ Uniform", DPMPP_2M, "uniform"),
    _row("DPM++ Uniform Beta", DPMPP_2M, "beta"),
    _row("DPM++ Uniform Exponential", DPMPP_2M, "exponential"),
    _row("DPM++ Uniform Karras", DPMPP_2M, "karras"),
    _row(
        "DPMSolverMultistepInverse",
        EULER,
        flag=NONE,
        note=say("This scheduler turns a picture into noise; Euler runs instead."),
    ),
    _row("DPMSolverMultistepScheduler", DPMPP_2M),
    _row("DPMSolverSinglestepScheduler", DPMPP_2S),
    _row(
        "EDMDPMSolverMultistepScheduler",
        DPMPP_2M,
        flag=NONE,
        note=say("EDM's scaling does not fit a flow model; DPM++ 2M on the native sigmas runs instead."),
    ),
    _row(
        "EDMEulerScheduler",
        EULER,
        flag=NONE,
        note=say("EDM's scaling does not fit a flow model; Euler on the native sigmas runs instead."),
    ),
    _row("Euler", EULER, flag=EXACT),
    _row("Euler a", EULER_ANCESTRAL),
    _row("Euler Beta", EULER, "beta"),
    _row("Euler DiscreteScheduler", EULER, flag=EXACT),
    _row("Euler Exponential", EULER, "exponential"),
    _row("Euler Karras", EULER, "karras"),
    _row("EulerAncestralDiscreteScheduler", EULER_ANCESTRAL),
    _row("FlowMatchEulerDiscreteScheduler", EULER, flag=EXACT),
    _row("Heun", HEUN),
    _row("HeunDiscreteScheduler", HEUN),
    _row("Heun Karras", HEUN, "karras"),
    _row("IPNDMScheduler", IPNDM),
    _row("IPNDM Uniform", IPNDM, "uniform"),
    _row("IPNDM Uniform Beta", IPNDM, "beta"),
    _row("IPNDM Uniform Exponential", IPNDM, "exponential"),
    _row("IPNDM Uniform Karras", IPNDM, "karras"),
    _row("KDPM2AncestralDiscreteScheduler", DPM_2_ANCESTRAL),
    _row("KDPM2DiscreteScheduler", DPM_2),
    _row("LCM", LCM, flag=NONE, note=_LCM_NOTE),
    _row("LCMScheduler", LCM, flag=NONE, note=_LCM_NOTE),
    _row("LMS", LMS),
    _row("LMSDiscreteScheduler", LMS),
    _row("LMS Karras", LMS, "karras"),
    _row("PNDMScheduler", IPNDM),
    _row(
        "TCDScheduler",
        EULER,
        flag=NONE,
        note=say("TCD is meant for a TCD-distilled model, which Klein is not; Euler runs instead."),
    ),
    _row("UniPC", UNIPC),
    _row("UniPC 2M", UNIPC),
    _row("UniPC 2M Karras", UNIPC, "karras"),
    _row("UniPC 2M Uniform", UNIPC, "uniform"),
    _row("UniPC 3M", UNIPC),
    _row("UniPC 3M Karras", UNIPC, "karras"),
    _row("UniPC 3M Uniform", UNIPC, "uniform"),
    _row("UniPC Karras", UNIPC, "karras"),
    _row("UniPC Uniform", UNIPC, "uniform"),
    _row("UniPC Uniform Beta", UNIPC, "beta"),
    _row("UniPC Uniform Exponential", UNIPC, "exponential"),
    _row("UniPC Uniform Karras", UNIPC, "karras"),
)

_FAST = _row(
    "Kleinod Fast",
    KLEINOD_FAST,
    "fast",
    OWN,
    "A second-order solver that uses every model call twice; about half the usual steps are enough.",
)

SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType({row.name: row for row in _ROWS})
SCHEDULER_NAMES = tuple(SCHEDULERS)
LOCAL_SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType({**SCHEDULERS, _FAST.name: _FAST})
"""With what only the local sampler knows, after the API's names."""
LOCAL_SCHEDULER_NAMES = tuple(LOCAL_SCHEDULERS)


def find_scheduler(name: str) -> Scheduler:
    """The entry of a name. Raises ValueError with the nearest known names."""
    if name in LOCAL_SCHEDULERS:
        return LOCAL_SCHEDULERS[name]
    near = get_close_matches(name, LOCAL_SCHEDULER_NAMES, n=3, cutoff=0.4)
    unknown = say("scheduler is %1, which is not a known name.", repr(name))
    hint = [say("Did you mean %1?", " / ".join(near))] if near else []
    raise InputError(join(" ", [unknown, *hint, say("Use %1 when unsure.", DEFAULT_SCHEDULER)]))
