"""What the block caches share: run the first blocks, see how little they changed, and add the rest from the
last time.

Rebuilt for ComfyUI's klein:
- everything is kept per condition (uuid), whether the two branches of guidance come in one call or in two;
- one decision holds for all branches of a step, since guidance multiplies any difference between them;
- ComfyUI's blocks write into their input, so what must last is cloned before;
- reference tokens are neither measured nor kept: the model throws them away after the last block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...base.errors import InputError
from ...base.sentences import Sentence, say
from ...base.values import HIGHER_REUSES_MORE, Acceleration
from .. import signals
from ..clock import SURE_FROM
from ..extrapolation import LinearExtrapolation
from ..plan import resolve_window
from ..report import COMPUTED, REUSED
from .policy import Block, Call, ModelFacts, Policy, RunFacts, Step, StepResult, ThresholdScale

WINDOW = (30, 95)
"""Percent of the steps in which steps may be reused, where the user set no window."""


@dataclass
class Memory:
    """What one condition left behind. residual: one line per stream, tokens `[rows, n, H]`. step: last
    computed.
    """

    residual: list[LinearExtrapolation]
    signal: Tensor
    step: int
    distance: float = 0.0
    size: Tensor | None = None

    def change_of(self, signal: Tensor) -> Tensor:
        """`signals.relative_change` since this was left; its own size is read once for all steps that ask."""
        if self.size is None:
            self.size = signals.mean_size(self.signal).clamp_min(1e-20)
        return signals.mean_size(signal - self.signal) / self.size


@dataclass
class Pass:
    """One call of the network on its way through the blocks: `rows` of the batch belong to each uuid."""

    uuids: list[Any]
    rows: int
    height: int
    width: int
    front: list[Tensor] = field(default_factory=list)
    before: Tensor | None = None
    signal: Tensor | None = None
    reuse: bool = False

    @property
    def batch(self) -> int:
        return self.rows * len(self.uuids)

    @property
    def tokens(self) -> int:
        return self.height * self.width

    def signal_of(self, i: int) -> Tensor:
        """Of the i-th condition; there is one from the front blocks on."""
        if self.signal is None:
            raise RuntimeError("a block cache was asked before its front blocks had run")
        return self.signal[self.part(i)]

    def part(self, i: int) -> slice:
        return slice(i * self.rows, (i + 1) * self.rows)


class BlockCache(Policy):
    """A policy that decides in the first blocks. Its file says by which signal and on which scale."""

    needs_blocks = True
    inside_network = True
    replaces_blocks = True
    scale: ClassVar[ThresholdScale]
    extrapolates: ClassVar[bool] = False
    """What the skipped blocks added is carried on along its slope over sigma instead of repeated."""

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        super().__init__(settings, run)
        self._limit = self.resolve(settings)
        self._window = self.window(settings, run.steps)
        self._cap = self.cap(settings)
        self._front = min(self.front_blocks(settings), run.model.double_blocks)
        self._back = self.back_blocks(settings)
        self._last = run.model.single_blocks - self._back - 1
        self._memory: dict[Any, Memory] = {}
        self._pass: Pass | None = None
        self._index: int | None = None
        self._sigma = 1.0
        self._in_a_row = 0
        self._decision: bool | None = None
        self._reused = False
        self._seen: list[Any] = []
        self._errors: list[Tensor] = []
        # Row-blocks of this step: run, and due without a cache (all blocks of klein cost the same).
        self._ran = 0
        self._due = 0
        self._split = False
        self._split_steps = 0
        self._redo = False

    # --- what a block policy says of itself

    @classmethod
    def dial(cls, settings: Acceleration) -> tuple[str, float, str]:
        """The API's name of its threshold, what the user set, and which way it points."""
        raise NotImplementedError

    @classmethod
    def changed(cls, settings: Acceleration) -> str:
        """ "a step is reused while ... that": what must stay below the threshold."""
        raise NotImplementedError

    @classmethod
    def front_blocks(cls, settings: Acceleration) -> int:
        """Double blocks that always run."""
        return 1

    @classmethod
    def back_blocks(cls, settings: Acceleration) -> int:
        """Single blocks at the end that always run."""
        return 0

    @classmethod
    def cap(cls, settings: Acceleration) -> int:
        return settings.cache_max_consecutive_steps

    def measure(self, memory: Memory, signal: Tensor, change: float) -> float:
        """How far a condition is from its last computed step; `change`: of the signal since `memory`'s."""
        return change

    # --- before a run

    @classmethod
    def resolve(cls, settings: Acceleration) -> float:
        """The number it compares with; 0 never reuses."""
        _, dial, meaning = cls.dial(settings)
        if dial <= 0:
            return 0.0
        return cls.scale.resolve(dial if meaning == HIGHER_REUSES_MORE else 1 - dial)

    @classmethod
    def window(cls, settings: Acceleration, steps: int) -> tuple[int, int]:
        low, high = WINDOW
        default = (math.floor(low * steps / 100), math.ceil(high * steps / 100))
        start, end = resolve_window(settings, steps, default)
        return max(start, SURE_FROM), end

    @classmethod
    def check(cls, settings: Acceleration, model: ModelFacts, steps: int | None = None) -> None:
        back, singles = cls.back_blocks(settings), model.single_blocks
        if back >= singles:
            raise InputError(
                say(
                    "back_blocks is %1, but this model has %2 single blocks, one of which must be "
                    "left to skip. Set back_blocks to %3 or less.",
                    back,
                    singles,
                    max(0, singles - 1),
                )
            )
        if steps is not None:
            cls.window(settings, steps)

    @classmethod
    def describe(cls, settings: Acceleration, steps: tuple[int, ...]) -> list[tuple[str, str]]:
        name, dial, meaning = cls.dial(settings)
        limit = cls.resolve(settings)
        words = (
            f"{name} {dial:g} ({meaning}), internally {limit:.4f}: a step is reused while "
            f"{cls.changed(settings)} that"
        )
        lines = [("method", f"{cls.title} cache"), ("threshold", words)]
        for count in steps:
            try:
                start, end = cls.window(settings, count)
                cap = cls.cap(settings)
                words = (
                    f"reuses between steps {start} and {end}, at most {cap} in a row, as the picture allows"
                )
            except InputError as error:
                words = str(error)
            lines.append((f"{count} steps", words))
        return lines

    # --- during a run

    @property
    def threshold(self) -> float | None:
        return self._limit

    @property
    def reused(self) -> bool:
        return self._reused

    @property
    def wants_redo(self) -> bool:
        return self._redo

    def begin_step(self, step: Step) -> bool:
        index = self._index = step.index
        self._sigma = step.sigma
        self._seen = []
        self._errors = []
        self._redo = False
        self._reused = False
        self._ran = self._due = 0
        inside = index is not None and self._window[0] <= index < self._window[1]
        self._decision = None if inside and self._in_a_row < self._cap and not self._split else False
        self._split = False
        return False

    def redo(self) -> None:
        self._redo = False
        self._reused = False
        self._decision = False
        self._seen = []
        self._due = 0

    def in_parts(self, guided: bool = True) -> Sentence:
        self._split_steps += not self._split
        self._split = True
        self._decision = False
        self._memory = {}
        return Sentence("")

    def begin_call(self, call: Call) -> None:
        uuids, batch = call.keys, call.batch
        repeated = any(uuid in self._seen for uuid in uuids) or len(set(uuids)) < len(uuids)
        if not uuids or repeated or batch % len(uuids):
            self.in_parts()
        self._seen += uuids
        self._due += batch * self.run.model.blocks
        if self._index is not None and not self._split:
            self._pass = Pass(list(uuids), batch // len(uuids), call.height, call.width)
        else:
            self._pass = None
            self._ran += batch * self.run.model.blocks

    def end_call(self) -> None:
        self._pass = None

    def block(self, kind: str, index: int, args: dict[str, Any], block: Block) -> dict[str, Any]:
        now = self._pass
        if now is None:
            return block(args)
        if kind == "double_block":
            return self._double(now, index, args, block)
        return self._single(now, index, args, block)

    def _double(self, now: Pass, i: int, args: dict[str, Any], block: Block) -> dict[str, Any]:
        if i == 0:
            self._enter(now, args)
        if i >= self._front and now.reuse:
            return {"img": args["img"], "txt": args["txt"]}
        self._ran += now.batch
        out = block(args)
        if i == self._front - 1:
            self._probe(now, out)
        return out

    def _single(self, now: Pass, i: int, args: dict[str, Any], block: Block) -> dict[str, Any]:
        if now.reuse and i <= self._last:
            return {"img": args["img"] if i < self._last else self._restore(now, args)}
        self._ran += now.batch
        out = block(args)
        if i == self._last and not self._decision:
            self._record(now, args, out["img"])
        return out

    def end_step(self, x: Tensor, denoised: Tensor) -> StepResult:
        """The error is the one a reuse of this computed step would have made."""
        share = self._ran / self._due if self._due else 1.0
        errors, self._errors = self._errors, []
        self._in_a_row = self._in_a_row + 1 if self._reused else 0
        if self._reused:
            return StepResult(denoised, share, REUSED)
        return StepResult(denoised, share, COMPUTED, torch.stack(errors).max() if errors else None)

    def notes(self) -> list[Sentence]:
        if not self._split_steps:
            return []
        return [
            say(
                "the block cache left %1 steps alone that ran a condition or a branch of guidance in parts "
                "(such as tiles or context windows)",
                self._split_steps,
            )
        ]

    def forget(self) -> None:
        self._memory = {}
        self._pass = None
        self._errors = []
        self._in_a_row = 0

    def _enter(self, now: Pass, args: dict[str, Any]) -> None:
        now.before = args["img"][:, : now.tokens].clone()

    def _probe(self, now: Pass, out: dict[str, Any]) -> None:
        if now.before is None:
            return
        now.signal = out["img"][:, : now.tokens] - now.before
        now.before = None
        self._keep_front(now, out)
        self._decide(now)

    def _keep_front(self, now: Pass, streams: dict[str, Any]) -> None:
        """Clone what the skipped blocks would have been given: they, and ControlNets, write into it."""
        if self._back:
            now.front = [streams["txt"].clone(), streams["img"].clone()]
        else:
            now.front = [streams["img"][:, : now.tokens].clone()]

    def _decide(self, now: Pass) -> None:
        """Reuse only where every row of every branch changed less than the threshold, all since the same
        step.
        """
        if self._decision is False:
            return
        distances = self._distances(now)
        # Not a number is never below the threshold.
        agreed = distances is not None and all(distance < self._limit for distance in distances)
        if agreed:
            steps = {self._memory[uuid].step for uuid in self._seen if uuid in self._memory}
            agreed = len(steps) == 1
        now.reuse = agreed
        self._reused = self._reused or agreed
        if self._decision is None:
            self._decision = agreed
        elif not agreed:
            self._redo = True

    def _distances(self, now: Pass) -> list[float] | None:
        """How far each condition is from its last computed step; None where one has no comparable past."""
        past = [self._memory[uuid] for uuid in now.uuids if uuid in self._memory]
        signals_now = [now.signal_of(i) for i in range(len(now.uuids))]
        if len(past) < len(now.uuids) or any(
            memory.signal.shape != part.shape or memory.signal.dtype != part.dtype
            for memory, part in zip(past, signals_now, strict=True)
        ):
            return None
        # With back blocks the references are kept too, and those may have been cut from this call.
        shapes = [front[now.part(0)].shape for front in now.front]
        if any([line.shape for line in memory.residual] != shapes for memory in past):
            return None
        changes = torch.stack(
            [memory.change_of(part).max() for memory, part in zip(past, signals_now, strict=True)]
        ).tolist()
        return [
            self.measure(memory, part, change)
            for memory, part, change in zip(past, signals_now, changes, strict=True)
        ]

    def _restore(self, now: Pass, args: dict[str, Any]) -> Tensor:
        """The sequence `[B, text + image tokens, H]` as it would leave the skipped blocks."""
        image = args["img"]
        if self._back:
            streams = [front + self._residual(now, i) for i, front in enumerate(now.front)]
            return torch.cat(streams, dim=1)
        text = args["transformer_options"]["img_slice"][0]
        image[:, text : text + now.tokens] = now.front[0] + self._residual(now, 0)
        return image

    def _residual(self, now: Pass, stream: int) -> Tensor:
        memories = [self._memory[uuid] for uuid in now.uuids]
        dtype = now.front[stream].dtype
        parts = [memory.residual[stream].at(self._sigma).to(dtype) for memory in memories]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _record(self, now: Pass, args: dict[str, Any], image: Tensor) -> None:
        """Keep what the blocks after the front added, and how wrong a reuse would have been."""
        text = args["transformer_options"]["img_slice"][0]
        after = [image[:, :text], image[:, text:]] if self._back else [image[:, text : text + now.tokens]]
        residuals = [a - front for a, front in zip(after, now.front, strict=True)]
        for i, uuid in enumerate(now.uuids):
            memory = self._memory.get(uuid)
            signal = now.signal_of(i)
            parts = [residual[now.part(i)] for residual in residuals]
            if memory is None or [line.shape for line in memory.residual] != [part.shape for part in parts]:
                lines = [LinearExtrapolation(slope=self.extrapolates) for _ in parts]
                memory = Memory(lines, signal, -1)
                self._memory[uuid] = memory
            errors = [line.add(self._sigma, part) for line, part in zip(memory.residual, parts, strict=True)]
            if errors[-1] is not None:
                self._errors.append(errors[-1].max())
            memory.signal, memory.size = signal, None
            memory.step = -1 if self._index is None else self._index
            memory.distance = 0.0
