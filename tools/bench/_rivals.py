"""The ways to a faster picture that the acceleration bench compares, ours and others'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.bench._pictures import Group, Painter, measured, native

Apply = Callable[[Any, float | None, list], Any]


@dataclass(frozen=True)
class Way:
    """One row of the bench.

    apply: (model, dial, reports) -> model. solver: ComfyUI's name or `fast`. steps: other than the bench's.
    alone: one picture at a time, since it decides by looking at them. budget: work to which the dial is set,
    between `dials`. family: forecast | ours | rival cache | fewer steps | solver | uncached.
    """

    name: str
    family: str
    apply: Apply = lambda model, dial, reports: model
    solver: str = "euler"
    steps: int | None = None
    alone: bool = False
    budget: float | None = None
    dials: tuple[float, float] = (0.0, 1.0)
    edits_only: bool = False

    @property
    def tunable(self) -> bool:
        return self.budget is not None

    def sample(self, painter: Painter, group: Group, steps: int, dial: float | None, reports: list) -> Any:
        import comfy.samplers
        from kleinod.nodes.sampling.fast import sample_fast
        from kleinod.nodes.sampling.schedule import build_schedule

        model = self.apply(painter.model, dial, reports)
        steps = self.steps or steps
        if self.solver == "fast":
            sigmas = build_schedule("fast", steps, group.tokens).sigmas
            return painter.sample(model, group, comfy.samplers.KSAMPLER(sample_fast), sigmas)
        sampler = comfy.samplers.sampler_object(self.solver)
        return painter.sample(model, group, sampler, native(steps, group), self.alone)


EULER = Way("uncached", "uncached")


def tune(way: Way, painter: Painter, groups: Sequence[Group], steps: int, rounds: int = 6) -> float:
    """The dial with which `way` does the work of its budget on the calibration prompts: by halving."""
    with measured(painter.model) as whole:
        for group in groups:
            EULER.sample(painter, group, steps, None, [])
    low, high = way.dials
    best, nearest = high, 9.0
    for _ in range(rounds):
        dial = (low + high) / 2
        with measured(painter.model) as meter:
            for group in groups:
                way.sample(painter, group, steps, dial, [])
        away = meter.work / whole.work - way.budget
        if abs(away) < nearest:
            best, nearest = dial, abs(away)
        if abs(away) < 0.02:
            break
        low, high = (dial, high) if away > 0 else (low, dial)
    return best


def ours(**fields: Any) -> Apply:
    """Our engine with these fields of Acceleration; `dial` in a value stands for the dial."""

    def apply(model: Any, dial: float | None, reports: list) -> Any:
        from kleinod.nodes.acceleration.patch import accelerate
        from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration

        given = {name: dial if value == "dial" else value for name, value in fields.items()}
        settings = {"threshold_meaning": HIGHER_REUSES_MORE, **given}
        return accelerate(model, Acceleration(**settings), reports.append)

    return apply


def easy_cache(node: str, own_copy: bool = True) -> Apply:
    """ComfyUI's EasyCache or LazyCache with its own defaults; `dial` is its threshold.

    own_copy: it writes into its input, which in float32 is the sampler's own picture; with a copy it works as
    in bfloat16, where ComfyUI's cast makes one. The stronger form is the fair rival.
    """

    def apply(model: Any, dial: float | None, _reports: list) -> Any:
        import comfy_extras.nodes_easycache as core
        from comfy.patcher_extension import WrappersMP

        kind = WrappersMP.DIFFUSION_MODEL if node == "EasyCacheNode" else WrappersMP.PREDICT_NOISE
        if own_copy:
            model = model.clone()
            model.add_wrapper_with_key(
                kind, "bench", lambda run, x, *rest, **named: run(x.clone(), *rest, **named)
            )
        threshold = 0.2 if dial is None else dial
        return getattr(core, node).execute(model, threshold, 0.15, 0.95, False).args[0]

    return apply


def list_ways(steps: int, few: bool = False) -> list[Way]:
    """All rows for a run of `steps`. few: the presets and their strongest rivals only."""
    from kleinod.nodes.acceleration.policies.forecast import plan_usual_run
    from kleinod.nodes.base.values import Acceleration

    levels = {
        level: plan_usual_run(Acceleration(level), steps).computed
        for level in ("low", "medium", "high", "highest")
    }
    calls = sorted({*levels.values(), steps // 2, round(steps / 3)}, reverse=True)
    ways = [EULER]
    # One picture at a time: what the guard does with one, a batch would not show.
    ways += [Way(f"forecast {level}", "forecast", ours(acceleration=level), alone=True) for level in levels]
    ways += [Way(f"Euler, {count} steps", "fewer steps", steps=count) for count in calls]
    ways += [
        Way(f"DPM++ 2M, {count} steps", "fewer steps", solver="dpmpp_2m", steps=count) for count in calls
    ]
    ways += [Way(f"Kleinod Fast, {count} steps", "solver", solver="fast", steps=count) for count in calls]
    for level in ("medium", "high", "highest") if few else levels:
        share = levels[level] / steps
        easy = {"alone": True, "budget": share, "dials": (0.0, 3.0)}
        ways.append(
            Way(f"EasyCache at the work of {level}", "rival cache", easy_cache("EasyCacheNode"), **easy)
        )
        if not few:
            ways.append(
                Way(f"LazyCache at the work of {level}", "rival cache", easy_cache("LazyCacheNode"), **easy)
            )
    if few:
        return ways
    ways += [
        Way("forecast at speed 4", "ours", ours(speed=4.0), alone=True),
        Way("guidance every 2nd", "ours", ours(acceleration="none", guidance_interval=2)),
        Way("no guidance after 70%", "ours", ours(acceleration="none", guidance_end_percentage=70)),
        Way("EasyCache as it comes (0.2)", "rival cache", easy_cache("EasyCacheNode", False), alone=True),
        Way("LazyCache as it comes (0.2)", "rival cache", easy_cache("LazyCacheNode", False), alone=True),
        Way(
            f"res_multistep, {levels['medium']} steps",
            "fewer steps",
            solver="res_multistep",
            steps=levels["medium"],
        ),
        Way(
            "edits: references every 4th step",
            "ours",
            ours(acceleration="none", reference_cache="refresh"),
            edits_only=True,
        ),
        Way(
            "edits: forecast medium + references every 4th step",
            "ours",
            ours(acceleration="medium", reference_cache="refresh"),
            edits_only=True,
        ),
    ]
    at = {"alone": True, "budget": levels["medium"] / steps}
    wide = {"cache_start_step_percentage": 14}
    ways += [
        Way("first block", "ours", ours(fb_cache=True, fb_cache_threshold="dial", **wide), **at),
        Way("dual block", "ours", ours(db_cache=True, db_cache_threshold="dial", **wide), **at),
        Way("Tea, Klein coefficients", "ours", ours(tea_cache=True, tea_cache_distance="dial", **wide), **at),
        Way(
            "Tea, spectral",
            "ours",
            ours(tea_cache=True, tea_cache_distance="dial", tea_signal="spectral", **wide),
            **at,
        ),
    ]
    return ways
