"""`run.py bench overhead`: what acceleration itself costs, as a share of one uncached step.

A random Klein with the 4B's 25 blocks, on a CPU narrow, on a graphics card (`--gpu`) at its real width, in
bfloat16 and at 1024x1024. Two clocks:
- a skipped step: from one callback of the sampler to the next, solver and all, against the same of an
  uncached run;
- the gate on a computed step: too small to see beside a step, so the network is replaced by one that answers
  at once, and the run with acceleration is compared with the run without; the difference is then told as a
  share of the real step.
On a card also: the same with each block compiled (`--compile`), the step against the roofline (work over the
card's own speed at large matrix products), and the memory of every level.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench.loras import draw_model
from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack

DOUBLES, SINGLES = 5, 20
TEXT = 512
STEPS = 16
LEVELS = ("forecast", "first block", "dual block", "guidance")


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench overhead")
    parser.add_argument("--gpu", action="store_true", help="on the graphics card, at the 4B's real size")
    parser.add_argument("--compile", action="store_true", help="also with each block compiled")
    parser.add_argument("--width", type=int, help="of the network; default 3072 on a card, 256 on a CPU")
    parser.add_argument("--size", type=int, help="side in pixels; default 1024 on a card, 256 on a CPU")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    enable_comfyui(Path(os.environ["COMFYUI_PATH"]), () if options.gpu else ("--cpu",))
    load_pack(ROOT)
    import comfy.sd
    import torch

    torch.manual_seed(0)
    width, size = (
        options.width or (3072 if options.gpu else 256),
        options.size or (1024 if options.gpu else 256),
    )
    dtype = torch.bfloat16 if options.gpu else torch.float32
    state = draw_model(width, DOUBLES, SINGLES, dtype)
    # In the 4B's proportion: at its own 7680 the text's entry would outweigh four blocks of a narrow network.
    context = width * 5 // 2
    state["txt_in.weight"] = state["txt_in.weight"][:, :context].contiguous()
    model = comfy.sd.load_diffusion_model_state_dict(state)
    del state
    print(f"width {width}, blocks {DOUBLES} + {SINGLES}, {size}x{size}, {dtype}", flush=True)
    bench = Bench(model, size // 16, options.repeats, context)
    rows = bench.measure("")
    if options.gpu:
        rows.append(_roofline(bench.step, width, bench.tokens, dtype))
    if options.compile:
        rows += Bench(_compiled(model), size // 16, options.repeats, context).measure("compiled: ")
    return rows


class Bench:
    """One model, its runs and their clocks."""

    def __init__(self, model: Any, side: int, repeats: int, context: int) -> None:
        import torch

        self.torch, self.model, self.side, self.repeats = torch, model, side, repeats
        self.noise = torch.randn(1, 128, side, side, generator=torch.Generator().manual_seed(1))
        self.texts = [
            [[torch.randn(1, TEXT, context, generator=torch.Generator().manual_seed(seed)), {}]]
            for seed in (2, 3)
        ]
        self.step = 0.0

    @property
    def tokens(self) -> int:
        return self.side**2 + TEXT

    def measure(self, prefix: str) -> list[Row]:
        uncached, _ = self.clock(self.model)
        self.step = statistics.median(uncached)
        rows = [row_of_samples(f"{prefix}uncached step", uncached, "s")]
        goals = {"forecast": "<= 1", "first block": "<= 5"}
        for level in LEVELS:
            reports: list = []
            times, peak = self.clock(self.accelerated(level, reports), reports)
            if times:
                shares = [100 * seconds / self.step for seconds in times]
                name = "half" if level == "guidance" else "skipped"
                goal = goals.get(level)
                rows.append(row_of_samples(f"{prefix}{level}: {name} step", shares, "% of a step", goal))
            else:
                rows.append(Row(f"{prefix}{level}: nothing was reused", float("nan"), "", None, 0))
            if peak is not None:
                rows.append(Row(f"{prefix}{level}: most memory", peak, "GiB"))
        rows.append(self.gate(prefix))
        return rows

    def accelerated(self, level: str, reports: list, idle: bool = False) -> Any:
        """idle: the window opens at the very end, so that every other step is looked at and computed."""
        from kleinod.nodes.acceleration.patch import accelerate
        from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration

        window = {"cache_start_step": STEPS - 2 if idle else 4, "cache_end_step": STEPS - 1}
        bold = {"threshold_meaning": HIGHER_REUSES_MORE, "forecast_error_limit": 10.0, **window}
        settings = {
            "forecast": {"acceleration": "high", **bold},
            "first block": {"fb_cache": True, "fb_cache_threshold": 1.0, **bold},
            "dual block": {"db_cache": True, "db_cache_threshold": 1.0, **bold},
            "guidance": {"acceleration": "none", "guidance_interval": 2},
        }
        return accelerate(self.model, Acceleration(**settings[level]), reports.append)

    def clock(self, model: Any, reports: list | None = None) -> tuple[list[float], float | None]:
        """Seconds of the steps that were skipped (all, without a level) and the peak of memory in GiB."""
        cuda = self.torch.cuda.is_available() and self.model.load_device.type == "cuda"
        found: list[float] = []
        for repeat in range(self.repeats + 1):
            if cuda:
                self.torch.cuda.reset_peak_memory_stats()
            times = self.sample(model)
            kinds = ["R"] * len(times) if reports is None else list(reports[-1].pattern[1:])
            if repeat:  # the first run warms up
                found += [seconds for seconds, kind in zip(times, kinds, strict=True) if kind in "RH"]
        peak = self.torch.cuda.max_memory_allocated() / 2**30 if cuda else None
        return found, peak

    def sample(self, model: Any) -> list[float]:
        """One run; the time of every step but the first."""
        import comfy.samplers

        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(*self.texts)
        guider.set_cfg(4.0)
        ends: list[float] = []
        guider.sample(
            self.noise,
            self.torch.zeros_like(self.noise),
            comfy.samplers.sampler_object("euler"),
            # Close together: random weights jump too far on a real schedule for a block cache to hit at all.
            self.torch.linspace(0.5, 0.499, STEPS + 1),
            callback=lambda *_: ends.append(self.now()),
            disable_pbar=True,
            seed=1,
        )
        return [after - before for before, after in zip(ends[:-1], ends[1:], strict=True)]

    def now(self) -> float:
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()
        return time.perf_counter()

    def gate(self, prefix: str) -> Row:
        """What the forecast's deciding and remembering add to a computed step, as a share of a real one."""
        plain = self.instant(self.model)
        gated = self.instant(self.accelerated("forecast", [], idle=True))
        for model in (plain, gated):
            self.sample(model)
        differences = []
        for _ in range(4 * self.repeats):
            without, with_gate = (statistics.median(self.sample(model)[3:-3]) for model in (plain, gated))
            differences.append(100 * (with_gate - without) / self.step)
        return row_of_samples(
            f"{prefix}forecast: gate on a computed step", differences, "% of a step", "<= 0.5"
        )

    def instant(self, model: Any) -> Any:
        """`model` with a network that answers at once: blocks pass their input on."""
        from comfy.patcher_extension import WrappersMP

        def answer(_executor: Callable[..., Any], x: Any, *_rest: Any, **_named: Any) -> Any:
            return x * 0.5

        quick = model.clone()
        quick.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "kleinod.bench", answer)
        return quick


def _compiled(model: Any) -> Any:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    keys = [f"diffusion_model.double_blocks.{i}" for i in range(DOUBLES)]
    keys += [f"diffusion_model.single_blocks.{i}" for i in range(SINGLES)]
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="inductor", keys=keys)
    return compiled


def _roofline(step: float, width: int, tokens: int, dtype: Any) -> Row:
    """A guided step over its arithmetic at the speed this very card reaches in large matrix products."""
    import torch

    side = 8192
    a, b = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    speed = 20 * 2 * side**3 / (time.perf_counter() - started)
    # 13 H^2 weights act on every token, in double blocks as in single ones; attention adds 4 n^2 H a block.
    blocks = DOUBLES + SINGLES
    work = 2 * blocks * (2 * 13 * width**2 * tokens + 4 * tokens**2 * width)
    return Row("uncached step over its roofline", step / (work / speed), "x", None, 1, None)
