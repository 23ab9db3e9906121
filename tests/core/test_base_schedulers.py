"""The table of scheduler names, against the API's enum and the rules that made it."""

from __future__ import annotations

import pytest
from kleinod_pure.base.schedulers import (
    DEFAULT_SCHEDULER,
    EULER,
    EXACT,
    NONE,
    SCHEDULER_NAMES,
    SCHEDULERS,
    UNIPC,
    find_scheduler,
)
from kleinod_pure.sampling.schedule import RULES

# The allowed values of `scheduler` in the API document of FLUX.2 [klein] 4B Base, in its order.
ENUM = """
DDIM | DDIMScheduler | DDPMScheduler | DEISMultistepScheduler | Default | DPM++ | DPM++ 2M | DPM++ 2M Beta
DPM++ 2M Exponential | DPM++ 2M Karras | DPM++ 2M SDE | DPM++ 2M SDE Beta | DPM++ 2M SDE Exponential
DPM++ 2M SDE Karras | DPM++ 2M SDE Uniform | DPM++ 2M Uniform | DPM++ 3M | DPM++ 3M Beta
DPM++ 3M Exponential | DPM++ 3M Karras | DPM++ 3M SDE Uniform | DPM++ 3M Uniform | DPM++ Beta
DPM++ Exponential | DPM++ Karras | DPM++ SDE | DPM++ SDE Beta | DPM++ SDE Exponential | DPM++ SDE Karras
DPM++ Uniform | DPM++ Uniform Beta | DPM++ Uniform Exponential | DPM++ Uniform Karras
DPMSolverMultistepInverse | DPMSolverMultistepScheduler | DPMSolverSinglestepScheduler
EDMDPMSolverMultistepScheduler | EDMEulerScheduler | Euler | Euler a | Euler Beta | Euler DiscreteScheduler
Euler Exponential | Euler Karras | EulerAncestralDiscreteScheduler | FlowMatchEulerDiscreteScheduler | Heun
HeunDiscreteScheduler | Heun Karras | IPNDMScheduler | IPNDM Uniform | IPNDM Uniform Beta
IPNDM Uniform Exponential | IPNDM Uniform Karras | KDPM2AncestralDiscreteScheduler | KDPM2DiscreteScheduler
LCM | LCMScheduler | LMS | LMSDiscreteScheduler | LMS Karras | PNDMScheduler | TCDScheduler | UniPC | UniPC 2M
UniPC 2M Karras | UniPC 2M Uniform | UniPC 3M | UniPC 3M Karras | UniPC 3M Uniform | UniPC Karras
UniPC Uniform | UniPC Uniform Beta | UniPC Uniform Exponential | UniPC Uniform Karras
"""
NAMES = [name.strip() for line in ENUM.strip().splitlines() for name in line.split("|")]


def test_names_are_the_enum_in_its_order() -> None:
    assert len(NAMES) == len(set(NAMES)) == 75
    assert list(SCHEDULER_NAMES) == NAMES


def test_the_default_is_an_exact_one() -> None:
    assert DEFAULT_SCHEDULER == "Default"
    assert (find_scheduler("Default").solver, find_scheduler("Default").rule) == (EULER, "native")


@pytest.mark.parametrize("name", NAMES)
def test_the_last_word_names_the_sigmas(name: str) -> None:
    last = name.split()[-1].lower()
    assert SCHEDULERS[name].rule == (last if last in RULES else "native")


def test_flags() -> None:
    exact = [name for name in NAMES if SCHEDULERS[name].flag == EXACT]
    assert exact == ["Default", "Euler", "Euler DiscreteScheduler", "FlowMatchEulerDiscreteScheduler"]
    assert {SCHEDULERS[name].solver for name in exact} == {EULER}
    none = [name for name in NAMES if SCHEDULERS[name].flag == NONE]
    assert none == [
        "DDPMScheduler",
        "DPMSolverMultistepInverse",
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "LCM",
        "LCMScheduler",
        "TCDScheduler",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_not_exact_says_why(name: str) -> None:
    entry = SCHEDULERS[name]
    if entry.flag == NONE:
        assert entry.note.endswith((" instead.", " picture."))
    if entry.note:
        assert entry.note[-1] == "." and len(entry.note) < 120


@pytest.mark.parametrize("name", NAMES)
def test_samplers_that_leave_a_flow_are_not_used(name: str) -> None:
    assert SCHEDULERS[name].solver.sampler not in (
        "ddpm",
        "res_multistep_ancestral",
        "dpm_adaptive",
        "dpm_fast",
    )


def test_unipc_hands_a_single_step_to_euler() -> None:
    unipc = find_scheduler("UniPC Karras")
    assert unipc.solver_for(1) is EULER
    assert unipc.solver_for(2) is UNIPC


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"scheduler is 'dpm\+\+ 2m karas'.*Use Default"):
        find_scheduler("dpm++ 2m karas")
    with pytest.raises(ValueError, match="Did you mean Euler Karras"):
        find_scheduler("Euler Karas")
