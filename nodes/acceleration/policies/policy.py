"""The contract of a cache policy: one way to leave out work of the transformer, in one file of this folder.

A policy is asked at fixed places of a run, from the outside in, and answers for itself at each. What it does
not need it leaves as it is here: the defaults change nothing. `policies/registry.py` lists the policies;
nothing else names one.

    begin_step      a step opens; True where the policy stands in for the whole network (`predict` follows)
    spares_branch   the negative prompt's branch is made up from the prompt's (`make_up_branch`)
    begin_call      a call of the network for some of the branches opens; `end_call` closes it
    block, attend   stand in the place of one block, of one block's attention
    end_step        the step closes: a StepResult says what was spared and what the solver shall be given
    forget          what earlier steps left says nothing about the next one

The settings (base/values.py: Acceleration) hold the API's fields and those of the policies that came with
the pack. A policy of later days brings its dials along: `fields`, kept in `Acceleration.options`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ...base.acceleration import FittedTable
from ...base.fields import Field
from ...base.sentences import Sentence
from ...base.values import Acceleration
from ..linear_solver import LinearSolver
from ..report import COMPUTED

Block = Callable[[dict[str, Any]], dict[str, Any]]

MIN_STEPS = 8
"""A shorter run has no steps to spare (distilled models: 4 steps); only what is exact helps it."""


@dataclass(frozen=True)
class ModelFacts:
    """What a policy may have to know of the model before it runs.

    double_blocks, single_blocks: of a klein transformer, 0 for anything else. flux_kv_cache: core's node of
    that name holds the keys of references.
    """

    double_blocks: int = 0
    single_blocks: int = 0
    flux_kv_cache: bool = False

    @property
    def blocks(self) -> int:
        return self.double_blocks + self.single_blocks


@dataclass(frozen=True)
class RunFacts:
    """What a run is, beyond its settings.

    sigmas: `steps + 1`, of this run. solver: what it does with denoised pictures, so that past forecasts can
    be set right; None where that is not known. regular: it is known to call the model once a step.
    noise_path: it is known to add noise along one path, the same in any number of steps. guidance: of the
    run, 1 without. mu: how FLUX.2 shifts the time of such a run, None for other models. rough: the network
    computes in less than float32. fingerprint: of the model, empty where it has none; tables: what was
    fitted to it.
    """

    sigmas: tuple[float, ...]
    solver: LinearSolver | None = None
    regular: bool = False
    noise_path: bool = False
    guidance: float = 4.0
    mu: float | None = None
    rough: bool = False
    model: ModelFacts = ModelFacts()
    fingerprint: str = ""
    tables: tuple[FittedTable, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


@dataclass(frozen=True)
class Step:
    """The step that opens. index: None where nothing connects it to the others (it must be computed)."""

    index: int | None
    sigma: float


@dataclass
class Call:
    """One call of the network. keys: its conditions in the order of the rows, `batch` rows in all.

    height, width: of the latent, in cells. references: sizes of the reference latents. masked: an attention
    mask counts on all tokens. inputs: the model's further inputs, which a policy may change.
    """

    keys: list[Any]
    batch: int
    height: int
    width: int
    references: tuple[Any, ...] = ()
    masked: bool = False
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """What a step came to.

    denoised: what the solver shall be given. work: share of the work that ran, 1 is all. kind: as in
    report.py. error: of a forecast held against the truth, `[B]` or one number, None without one.
    """

    denoised: Tensor
    work: float = 1.0
    kind: str = COMPUTED
    error: Tensor | None = None


@dataclass(frozen=True)
class ThresholdScale:
    """A dial of 0..1 -> the relative change a policy compares with: `limit * dial ** power`; 0 is never."""

    limit: float
    power: float

    def resolve(self, dial: float) -> float:
        return self.limit * dial**self.power


class Policy:
    """One run's state of one policy. Made where `is_wanted` and `check` allow it, dropped with the run."""

    title: ClassVar[str] = ""
    """What reports and the info text call it."""
    needs_blocks: ClassVar[bool] = False
    """Works on FLUX.2 [klein]'s blocks only."""
    inside_network: ClassVar[bool] = False
    """Needs hooks inside the network, not only around it."""
    replaces_blocks: ClassVar[bool] = False
    replaces_attention: ClassVar[bool] = False
    fields: ClassVar[tuple[Field, ...]] = ()
    """Dials of its own beyond Acceleration's: they become inputs of Klein Acceleration."""

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        self.settings = settings
        self.run = run

    # --- before a run, without state

    @classmethod
    def take_fewer_steps(cls, settings: Acceleration, run: RunFacts) -> int:
        """How many steps of its solver the run should rather have, in the place of this policy; 0: its own.

        For runs in which the policy is worse than plain steps at the same work.
        """
        return 0

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        """Whether these settings ask for it, on a model and for a run that are not known yet."""
        return False

    @classmethod
    def min_steps(cls, settings: Acceleration) -> int:
        """A run of fewer steps is left alone."""
        return MIN_STEPS

    @classmethod
    def check(cls, settings: Acceleration, model: ModelFacts, steps: int | None = None) -> None:
        """Raises InputError where the settings cannot work on this model or, where known, number of steps."""

    @classmethod
    def describe(cls, settings: Acceleration, steps: tuple[int, ...]) -> list[tuple[str, str]]:
        """Lines (title, text) for the info output: what its dials mean, what runs of `steps` would do."""
        return [("policy", cls.title)]

    # --- during a run

    @property
    def threshold(self) -> float | None:
        """The number it compares with, for the report."""
        return None

    @property
    def is_exact(self) -> bool:
        """Approximates nothing, so that it goes on where the others have to stop."""
        return False

    @property
    def reused(self) -> bool:
        """This step took something over from an earlier one."""
        return False

    @property
    def wants_redo(self) -> bool:
        """The step just tried must be run again, in full: its branches disagreed. `redo` then follows."""
        return False

    def begin_step(self, step: Step) -> bool:
        return False

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """The denoised picture in the place of the network's; called where `begin_step` returned True."""
        raise NotImplementedError

    def breaks_path(self, index: int | None) -> bool:
        """From this step on the velocity is another one (guidance ends, say): no line leads across."""
        return False

    def path_broken(self) -> None:
        """Another policy breaks the path at the step that opens next."""

    def in_parts(self, guided: bool) -> Sentence:
        """The step's conditions run in several parts that know nothing of each other (tiles, context
        windows). Returns why everything must be computed from here on, or nothing.
        """
        return Sentence("")

    @property
    def spares_branch(self) -> bool:
        return False

    def learn_branches(self, conditional: Tensor, unconditional: Tensor) -> None:
        """Both branches' denoised pictures, freshly computed."""

    def make_up_branch(self, conditional: Tensor) -> Tensor:
        """The negative prompt's denoised picture, from the prompt's."""
        raise NotImplementedError

    def begin_call(self, call: Call) -> None: ...

    def end_call(self) -> None: ...

    def redo(self) -> None:
        """The step's calls are made once more."""

    def block(self, kind: str, index: int, args: dict[str, Any], block: Block) -> dict[str, Any]:
        """In the place of a block ("double_block" or "single_block"): args and result as in ComfyUI's
        patches_replace.
        """
        return block(args)

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """ComfyUI's post_input patch: img, txt and their ids before the first block."""
        return inputs

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, extra: dict[str, Any]
    ) -> dict[str, Tensor]:
        """ComfyUI's attn1 patch: what it returns stands in the place of q, k, v and attn_mask."""
        return {}

    def end_step(self, x: Tensor, denoised: Tensor) -> StepResult:
        """Close a computed step: `denoised` is what came out of the network at `x`."""
        return StepResult(denoised)

    def judge(self, error: float) -> None:
        """The error of the last step, the middle one of a batch, has reached this side."""

    def notes(self) -> Sequence[Sentence]:
        """For the report, once the run has ended."""
        return []

    def hold_nothing(self) -> None:
        """Several GPUs share the run: nothing may be kept at all."""
        self.forget()

    def forget(self) -> None: ...
