"""Block caches: run the first blocks, see how little they changed, and add the rest from the last time.

Three of Runware's options in one engine (first block: fbCache of ParaAttention and Comfy-WaveSpeed; dual
block: DBCache of vipshop/cache-dit; tea: TeaCache, arXiv 2411.19108), rebuilt for ComfyUI's klein:
- everything is kept per condition (uuid), whether the two branches of guidance come in one call or in two;
- one decision holds for all branches of a step, since guidance multiplies any difference between them;
- ComfyUI's blocks write into their input, so what must last is cloned before;
- reference tokens are neither measured nor kept: the model throws them away after the last block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..base.errors import InputError
from ..base.values import Acceleration
from . import presets, signals
from .forecast import Line
from .plan import Plan

Block = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class _Memory:
    """What one condition left behind. residual: one Line per stream, tokens `[rows, n, H]`. step: last
    computed.
    """

    residual: list[Line]
    signal: Tensor | None = None
    step: int = -1
    distance: float = 0.0


@dataclass
class _Call:
    """One call of the network: `rows` of the batch belong to each uuid in turn."""

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

    def part(self, i: int) -> slice:
        return slice(i * self.rows, (i + 1) * self.rows)


class BlockCache:
    """The engine behind `double` and `single`, which stand in the place of the model's blocks."""

    def __init__(
        self,
        method: str,
        threshold: float,
        window: tuple[int, int],
        cap: int,
        doubles: int,
        singles: int,
        front: int = 1,
        back: int = 0,
        spectral: bool = False,
        curve: signals.Curve = presets.TEA_CURVE,
    ) -> None:
        self.method = method
        self.threshold = threshold
        self.window = window
        self.cap = cap
        self.front = 0 if method == "tea" else min(front, doubles)
        self.back = back
        self.last = singles - back - 1
        self.spectral = spectral
        self.curve = curve
        self.total = doubles + singles
        self.extrapolates = method in presets.EXTRAPOLATING
        self._memory: dict[Any, _Memory] = {}
        self._call: _Call | None = None
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
        self._in_parts = False
        self._parted = 0
        self.redo = False

    @classmethod
    def wanted(cls, acceleration: Acceleration, plan: Plan, doubles: int, singles: int) -> BlockCache | None:
        """None where the plan has another method or the threshold is 0."""
        threshold = presets.resolved_threshold(acceleration)
        if plan.method not in ("first_block", "dual_block", "tea") or threshold <= 0:
            return None
        dual = plan.method == "dual_block"
        back = acceleration.back_blocks if dual else 0
        if singles < 1 or back >= singles:
            raise InputError(
                f"back_blocks is {back}, but this model has {singles} single blocks, one of which must "
                f"be left to skip. Set back_blocks to {max(0, singles - 1)} or less."
            )
        fitted = acceleration.calibration
        return cls(
            plan.method,
            threshold,
            plan.window,
            plan.cap,
            doubles,
            singles,
            front=acceleration.front_blocks if dual else 1,
            back=back,
            spectral=acceleration.tea_signal == "spectral",
            curve=signals.Curve(fitted.tea_coefficients, fitted.tea_limit)
            if fitted and fitted.tea_coefficients
            else presets.TEA_CURVE,
        )

    def begin_step(self, index: int | None, sigma: float) -> None:
        """Open a step; index None: compute it, and connect nothing to it."""
        self._index = index
        self._sigma = sigma
        self._seen = []
        self._errors = []
        self.redo = False
        self._reused = False
        self._ran = self._due = 0
        inside = index is not None and self.window[0] <= index < self.window[1]
        self._decision = None if inside and self._in_a_row < self.cap and not self._in_parts else False
        self._in_parts = False

    def force(self) -> None:
        """Compute the step just tried: one of its branches disagreed with the decision of the first."""
        self.redo = False
        self._reused = False
        self._decision = False
        self._seen = []
        self._due = 0

    def in_parts(self) -> None:
        """This step runs one condition, or the branches of guidance, in several parts that know nothing of
        each other (tiles, context windows, skip-layer guidance, two models): no decision holds for all.
        """
        self._parted += not self._in_parts
        self._in_parts = True
        self._decision = False
        self._memory = {}

    def begin_call(self, uuids: list[Any], batch: int, height: int, width: int) -> None:
        """Open a call of the network for `batch` rows of `height` x `width` latent cells."""
        repeated = any(uuid in self._seen for uuid in uuids) or len(set(uuids)) < len(uuids)
        if not uuids or repeated or batch % len(uuids):
            self.in_parts()
        self._seen += uuids
        self._due += batch * self.total
        if self._index is not None and not self._in_parts:
            self._call = _Call(list(uuids), batch // len(uuids), height, width)
        else:
            self._call = None
            self._ran += batch * self.total

    def end_call(self) -> None:
        self._call = None

    def double(self, i: int, args: dict[str, Any], block: Block) -> dict[str, Any]:
        """In the place of double block `i`: args and result as in ComfyUI's patches_replace."""
        call = self._call
        if call is None:
            return block(args)
        if i == 0:
            self._enter(call, args)
        if i >= self.front and call.reuse:
            return {"img": args["img"], "txt": args["txt"]}
        out = self._run(block, args)
        if i == self.front - 1:
            self._probe(call, out)
        return out

    def single(self, i: int, args: dict[str, Any], block: Block) -> dict[str, Any]:
        """In the place of single block `i`."""
        call = self._call
        if call is None:
            return block(args)
        if i > self.last:
            return self._run(block, args)
        if call.reuse:
            return {"img": args["img"] if i < self.last else self._restore(call, args)}
        out = self._run(block, args)
        if i == self.last and not self._decision:
            self._record(call, args, out["img"])
        return out

    def _run(self, block: Block, args: dict[str, Any]) -> dict[str, Any]:
        self._ran += self._call.batch
        return block(args)

    @property
    def reused(self) -> bool:
        """True where this step took something from an earlier one."""
        return self._reused

    def end_step(self) -> tuple[float, Tensor | None]:
        """Share of the blocks that ran, and the relative error a reuse of this computed step would have
        made.
        """
        share = self._ran / self._due if self._due else 1.0
        errors, self._errors = self._errors, []
        if self._reused:
            self._in_a_row += 1
            return share, None
        self._in_a_row = 0
        return share, torch.stack(errors).max() if errors else None

    def notes(self) -> list[str]:
        if not self._parted:
            return []
        return [
            f"{self._parted} steps ran a condition or a branch of guidance in parts (tiles, context windows, "
            "skip-layer guidance): the block cache left those alone"
        ]

    def forget(self) -> None:
        self._memory = {}
        self._call = None
        self._errors = []
        self._in_a_row = 0

    def _enter(self, call: _Call, args: dict[str, Any]) -> None:
        image = args["img"]
        if self.method != "tea":
            call.before = image[:, : call.tokens].clone()
            return
        (first, _), _ = args["vec"]
        call.signal = signals.modulated_input(image[:, : call.tokens], first.scale, first.shift)
        if self.spectral:
            call.signal = signals.spectral_filter(call.signal, call.height, call.width, self._sigma)
        self._keep_front(call, args)
        self._decide(call)

    def _probe(self, call: _Call, out: dict[str, Any]) -> None:
        call.signal = out["img"][:, : call.tokens] - call.before
        call.before = None
        self._keep_front(call, out)
        self._decide(call)

    def _keep_front(self, call: _Call, streams: dict[str, Any]) -> None:
        """Clone what the skipped blocks would have been given: they, and ControlNets, write into it."""
        if self.back:
            call.front = [streams["txt"].clone(), streams["img"].clone()]
        else:
            call.front = [streams["img"][:, : call.tokens].clone()]

    def _decide(self, call: _Call) -> None:
        """Reuse only where every row of every branch changed less than the threshold, all since the same
        step.
        """
        if self._decision is False:
            return
        distances = self._distances(call)
        # Not a number is never below the threshold.
        agreed = distances is not None and all(distance < self.threshold for distance in distances)
        if agreed:
            steps = {self._memory[uuid].step for uuid in self._seen if uuid in self._memory}
            agreed = len(steps) == 1
        call.reuse = agreed
        self._reused = self._reused or agreed
        if self._decision is None:
            self._decision = agreed
        elif not agreed:
            self.redo = True

    def _distances(self, call: _Call) -> list[float] | None:
        """How far each condition is from its last computed step; None where one has no comparable past."""
        past = [self._memory.get(uuid) for uuid in call.uuids]
        now = [call.signal[call.part(i)] for i in range(len(past))]
        if any(
            memory is None or memory.signal.shape != part.shape or memory.signal.dtype != part.dtype
            for memory, part in zip(past, now, strict=True)
        ):
            return None
        # With back blocks the references are kept too, and those may have been cut from this call.
        shapes = [front[call.part(0)].shape for front in call.front]
        if any([line.shape for line in memory.residual] != shapes for memory in past):
            return None
        changes = torch.stack(
            [
                signals.relative_change(part, memory.signal).max()
                for memory, part in zip(past, now, strict=True)
            ]
        ).tolist()
        if self.method != "tea":
            return changes
        for memory, part, change in zip(past, now, changes, strict=True):
            memory.distance += change if self.spectral else self.curve.at(change)
            memory.signal = part
        return [memory.distance for memory in past]

    def _restore(self, call: _Call, args: dict[str, Any]) -> Tensor:
        """The sequence `[B, text + image tokens, H]` as it would leave the skipped blocks."""
        streams = [front + self._residual(call, i) for i, front in enumerate(call.front)]
        image = args["img"]
        if self.back:
            return torch.cat(streams, dim=1)
        text = args["transformer_options"]["img_slice"][0]
        image[:, text : text + call.tokens] = streams[0]
        return image

    def _residual(self, call: _Call, stream: int) -> Tensor:
        memories = [self._memory[uuid] for uuid in call.uuids]
        return torch.cat(
            [memory.residual[stream].at(self._sigma).to(call.front[stream].dtype) for memory in memories]
        )

    def _record(self, call: _Call, args: dict[str, Any], image: Tensor) -> None:
        """Keep what the blocks after the front added, and how wrong a reuse would have been."""
        text = args["transformer_options"]["img_slice"][0]
        after = [image[:, :text], image[:, text:]] if self.back else [image[:, text : text + call.tokens]]
        residuals = [a - front for a, front in zip(after, call.front, strict=True)]
        for i, uuid in enumerate(call.uuids):
            memory = self._memory.get(uuid)
            parts = [residual[call.part(i)] for residual in residuals]
            if memory is None or [line.shape for line in memory.residual] != [part.shape for part in parts]:
                memory = _Memory(residual=[Line(slope=self.extrapolates) for _ in parts])
                self._memory[uuid] = memory
            errors = [line.add(self._sigma, part) for line, part in zip(memory.residual, parts, strict=True)]
            if errors[-1] is not None:
                self._errors.append(errors[-1].max())
            memory.signal = call.signal[call.part(i)]
            memory.step = self._index
            memory.distance = 0.0
