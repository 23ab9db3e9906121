"""The acceleration nodes and Klein Sampler on the tiny Klein, by counting real block executions."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from comfy_extras.nodes_custom_sampler import BasicGuider, CFGGuider, RandomNoise, SamplerCustomAdvanced
from kleinod.nodes.acceleration import apply
from kleinod.nodes.acceleration.nodes import (
    KleinodAcceleration,
    KleinodAccelerationReport,
    KleinodApplyAcceleration,
)
from kleinod.nodes.acceleration.patch import read_solver
from kleinod.nodes.base.fields import UNSET
from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration, Calibration
from kleinod.nodes.remote.services.runware import RunwareRequest
from kleinod.nodes.sampling.fast_nodes import KleinodFast
from kleinod.nodes.sampling.nodes import KleinodSampler
from kleinod.nodes.sampling.schedule import build_schedule

from nodes import KSampler
from tests.model.acceleration_rig import BLOCKS, BlockCounter
from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae

STEPS = 12


@pytest.fixture(scope="module")
def model() -> Any:
    return load_tiny_model()


@pytest.fixture(scope="module")
def vae() -> Any:
    return tiny_vae()


@pytest.fixture(scope="module")
def plain(model: Any, vae: Any) -> tuple[Any, ...]:
    """Klein Sampler's outputs without any acceleration."""
    return klein_sampler(model, vae)


@pytest.fixture
def counter(model: Any) -> Iterator[BlockCounter]:
    counter = BlockCounter.watch(model)
    yield counter
    counter.close()


def klein_sampler(model: Any, vae: Any, **settings: Any) -> tuple[Any, ...]:
    asked = {
        "width": 128, "height": 128, "steps": STEPS, "guidance": 4.0, "seed": 7, "scheduler": "Default",
        "results": 1, **settings,
    }  # fmt: skip
    return KleinodSampler.execute(
        model=model, positive=random_conditioning(1), negative=random_conditioning(2), vae=vae, **asked
    ).args


def settings_of(**dials: Any) -> Acceleration:
    return KleinodAcceleration.execute(**{"acceleration": "high", **dials}).args[0]


def core_sampler(model: Any, sampler: Any, sigmas: torch.Tensor, cfg: float = 4.0) -> dict[str, Any]:
    guider = CFGGuider.execute(model, random_conditioning(1), random_conditioning(2), cfg).args[0]
    noise = RandomNoise.execute(7).args[0]
    latent = {"samples": torch.zeros(1, 128, 8, 8)}
    return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).args[0]


def title_lines(report: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in report.splitlines():
        found.setdefault(line[:13].strip(), []).append(line[13:])
    return found


# --- Klein Sampler


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_a_preset_skips_real_work_and_says_so(
    model: Any, vae: Any, counter: BlockCounter, level: str
) -> None:
    image, latent, report, data, chart = klein_sampler(model, vae, acceleration=level)
    (run,) = json.loads(data)["runs"]
    assert run["computed"] < STEPS
    assert counter.total == run["computed"] * BLOCKS * 2
    assert (run["seed"], run["method"], len(run["records"])) == (7, "forecast", STEPS)
    (line,) = title_lines(report)["acceleration"]
    assert line.startswith(f"forecast: {run['pattern']}  {run['computed']} of {STEPS} steps computed")
    assert chart.shape[0] == 1 and chart.shape[3] == 3
    assert torch.isfinite(image).all() and torch.isfinite(latent["samples"]).all()


@pytest.mark.parametrize("scheduler", ["DPM++ 2M SDE Karras", "UniPC Uniform Exponential"])
def test_wide_first_steps_are_computed(model: Any, vae: Any, counter: BlockCounter, scheduler: str) -> None:
    """Whatever the solver: the plan knows the sigmas' place in FLUX.2's own time."""
    _, _, report, data, _ = klein_sampler(model, vae, acceleration="medium", scheduler=scheduler)
    run = json.loads(data)["runs"][0]
    assert run["asked"] == run["steps"] == STEPS and run["computed"] < STEPS
    assert counter.total == run["computed"] * BLOCKS * 2
    assert run["pattern"].startswith("CCCC") and "R" in run["pattern"], report


@pytest.mark.parametrize(
    "settings",
    [
        {"acceleration": "none"},
        {"acceleration": "high", "acceleration_settings": Acceleration("none")},
        {"acceleration_settings": Acceleration(fb_cache=True, fb_cache_threshold=0.0)},
        {"acceleration_settings": Acceleration(tea_cache=True, tea_cache_distance=0.0)},
        {"acceleration_settings": Acceleration(db_cache=True, db_cache_threshold=0.0)},
    ],
)
def test_none_and_threshold_0_change_no_bit(
    model: Any, vae: Any, plain: tuple[Any, ...], counter: BlockCounter, settings: dict[str, Any]
) -> None:
    counter.reset()
    other = klein_sampler(model, vae, **settings)
    assert counter.total == STEPS * BLOCKS * 2
    assert torch.equal(other[0], plain[0]) and torch.equal(other[1]["samples"], plain[1]["samples"])
    assert "acceleration" not in title_lines(other[2])
    assert json.loads(other[3])["runs"][0]["pattern"] == "C" * STEPS


@pytest.mark.parametrize(
    ("dials", "method"),
    [
        ({"fb_cache": True}, "first block"),
        ({"db_cache": True}, "dual block"),
        ({"tea_cache": True, "tea_cache_distance": 1.0}, "tea"),
        ({"speed": 2.0}, "forecast"),
    ],
)
def test_settings_win_over_the_preset(
    model: Any, vae: Any, counter: BlockCounter, dials: dict[str, Any], method: str
) -> None:
    bold = {f"{name}_threshold": 1.0 for name in dials if name in ("fb_cache", "db_cache")}
    value = settings_of(**dials, **bold, threshold_meaning=HIGHER_REUSES_MORE)
    # So close to the end nothing changes much, not even in a random model: every method finds steps to reuse.
    start = {"latent": {"samples": torch.ones(1, 128, 8, 8)}, "strength": 0.02}
    made = klein_sampler(model, vae, acceleration="low", acceleration_settings=value, **start)
    data = json.loads(made[3])
    (run,) = data["runs"]
    assert run["method"] == method
    assert data["acceleration"]["threshold_meaning"] == HIGHER_REUSES_MORE
    assert counter.total < STEPS * BLOCKS * 2
    # Every block of the tiny model costs the same, so the work that ran is the work that is reported.
    worked = sum(record["work"] for record in run["records"])
    assert counter.total == pytest.approx(worked * BLOCKS * 2)


def test_spared_guidance_halves_a_step(model: Any, vae: Any, counter: BlockCounter) -> None:
    value = settings_of(acceleration="none", guidance_interval=2)
    (run,) = json.loads(klein_sampler(model, vae, acceleration_settings=value)[3])["runs"]
    halves = run["pattern"].count("H")
    assert halves > 2
    assert counter.total == (2 * STEPS - halves) * BLOCKS


def test_every_result_is_reported_and_is_its_single_run(model: Any, vae: Any) -> None:
    settings = {"acceleration": "high", "steps": 8, "guidance": 1.0}
    both = klein_sampler(model, vae, results=2, **settings)
    alone = [klein_sampler(model, vae, seed=seed, **settings) for seed in (7, 8)]
    assert [run["seed"] for run in json.loads(both[3])["runs"]] == [7, 8]
    assert torch.equal(both[1]["samples"], torch.cat([one[1]["samples"] for one in alone]))
    errors = [json.loads(one[3])["runs"][0]["largest_error"] for one in alone]
    assert [run["largest_error"] for run in json.loads(both[3])["runs"]] == errors
    for line in title_lines(both[2])["acceleration"]:
        assert f"{100 * max(errors):.1f}%" in line and "alike" in line or line.startswith("seed ")


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"cache_start_step": STEPS}, "cacheStartStep is 12"),
        ({"cache_end_step": STEPS + 1}, "cacheEndStep is 13"),
        ({"db_cache": True, "back_blocks": 3}, "back_blocks is 3"),
    ],
)
def test_conflicts_are_named_before_anything_runs(
    model: Any, vae: Any, counter: BlockCounter, dials: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        klein_sampler(model, vae, acceleration_settings=settings_of(**dials))
    assert counter.total == 0


def test_untouched_widgets_are_the_defaults() -> None:
    assert settings_of() == Acceleration()
    for entry in KleinodAcceleration.define_schema().inputs[:-1]:
        expected = getattr(Acceleration(), entry.id)
        assert entry.default == (UNSET if expected is None else expected), entry.id


def test_a_calibration_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import folder_paths
    from kleinod.nodes.acceleration import calibration, calibration_files

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    assert settings_of(calibration="built in").calibration is None
    with pytest.raises(ValueError, match="calibration is 'mine'"):
        settings_of(calibration="mine")
    before = KleinodAcceleration.fingerprint_inputs(calibration="built in")
    value = Calibration("mine", (1.0, 0.0), 0.3)
    calibration.save(value, {}, calibration_files.calibrations_folder())
    assert KleinodAcceleration.define_schema().inputs[-1].options == ["built in", "rule (no table)", "mine"]
    assert settings_of(calibration="mine").calibration == value
    assert KleinodAcceleration.fingerprint_inputs(calibration="mine") != before


def test_conflicting_dials_never_become_a_value() -> None:
    with pytest.raises(ValueError, match="fbCache \\+ dbCache are switched on together"):
        settings_of(fb_cache=True, db_cache=True)
    with pytest.raises(ValueError, match="cacheStartStep is 2 and cacheStartStepPercentage is 10"):
        settings_of(cache_start_step=2, cache_start_step_percentage=10)


def test_short_runs_say_why_nothing_was_skipped(model: Any, vae: Any) -> None:
    plain = klein_sampler(model, vae, steps=4)
    fast = klein_sampler(model, vae, steps=4, acceleration="high")
    assert torch.equal(fast[0], plain[0])
    assert "4 steps are too few to skip any" in fast[2]


def test_a_distilled_model_gets_better_advice(model: Any, vae: Any) -> None:
    distilled = model.clone()
    distilled.cached_patcher_init = (None, ("models/flux-2-klein-4b.safetensors", {}))
    settings = {"guidance": 1.0, "steps": 8}
    advice = "A distilled model has no steps to spare: 4 steps without acceleration"
    assert advice in klein_sampler(distilled, vae, acceleration="high", **settings)[2]
    assert advice not in klein_sampler(distilled, vae, **settings)[2]


def test_strength_0_has_an_empty_report(model: Any, vae: Any) -> None:
    start = {"samples": torch.ones(1, 128, 8, 8)}
    made = klein_sampler(model, vae, latent=start, strength=0.0, acceleration="high")
    assert json.loads(made[3]) == {"acceleration": None, "runs": []}
    assert made[4].shape[0] == 1


# --- Kleinod Fast


def test_kleinod_fast_is_a_scheduler_and_a_pair_for_core_graphs(
    model: Any, vae: Any, counter: BlockCounter
) -> None:
    made = klein_sampler(model, vae, scheduler="Kleinod Fast", steps=14)
    assert counter.total == 14 * BLOCKS * 2
    assert "Kleinod Fast -> kleinod_fast, fast sigmas" in made[2]
    sampler, sigmas = KleinodFast.execute(14, 128, 128).args
    assert torch.equal(sigmas, build_schedule("fast", 14, 64).sigmas)
    assert torch.equal(core_sampler(model, sampler, sigmas)["samples"], made[1]["samples"])


@pytest.mark.parametrize(("steps", "guidance"), [(9, 4.0), (14, 5.0)])
def test_kleinod_fast_gives_way_where_it_is_no_good(
    model: Any, vae: Any, steps: int, guidance: float
) -> None:
    """It steps as Euler does, on its own sigmas, under Klein Sampler and in a core graph."""
    made = klein_sampler(model, vae, scheduler="Kleinod Fast", steps=steps, guidance=guidance)
    assert "stepped as Euler does" in made[2]
    sampler, sigmas = KleinodFast.execute(steps, 128, 128).args
    got = core_sampler(model, sampler, sigmas, guidance)["samples"]
    assert torch.equal(got, made[1]["samples"])
    torch.testing.assert_close(got, core_sampler(model, core_solver("euler"), sigmas, guidance)["samples"])


@pytest.mark.parametrize("guidance", [4.0, 5.0])
def test_what_skipped_steps_are_set_right_by_is_the_solver_that_runs(model: Any, guidance: float) -> None:
    """The forecast reads a solver by running it; Kleinod Fast is another one at strong guidance."""
    sampler, sigmas = KleinodFast.execute(14, 128, 128).args
    read = read_solver(sampler, sigmas.tolist(), model, guidance)
    euler = read_solver(core_solver("euler"), sigmas.tolist(), model, guidance)
    assert read is not None and euler is not None
    flat = [[[number for pair in row for number in pair] for row in one.weights] for one in (read, euler)]
    same = [len(row) for row in flat[0]] == [len(row) for row in flat[1]]
    assert same == (guidance >= 5), "a solver without a memory weighs one answer a step"


def test_the_sigmas_take_their_size_from_a_latent() -> None:
    wide = KleinodFast.execute(12, 512, 1024).args[1]
    for latent in (
        {"samples": torch.zeros(1, 128, 64, 32)},
        {"samples": torch.zeros(1, 4, 128, 64), "downscale_ratio_spacial": 8},
    ):
        assert torch.equal(KleinodFast.execute(12, 128, 128, latent).args[1], wide)
    assert not torch.equal(KleinodFast.execute(12, 128, 128).args[1], wide)
    assert float(KleinodFast.execute(12, 512, 512, strength=0.4).args[1][0]) == pytest.approx(0.4)


# --- core graphs


def test_none_is_the_very_model(model: Any) -> None:
    assert KleinodApplyAcceleration.execute(model, "none").args[0] is model
    assert KleinodApplyAcceleration.execute(model, "high", Acceleration("none")).args[0] is model


def test_core_samplers_are_accelerated_as_klein_sampler_is(
    model: Any, vae: Any, counter: BlockCounter
) -> None:
    ours = klein_sampler(model, vae, acceleration="high")[1]["samples"]
    work = counter.total
    counter.reset()
    fast = KleinodApplyAcceleration.execute(model, "high").args[0]
    sigmas = build_schedule("native", STEPS, 64).sigmas
    theirs = core_sampler(fast, core_solver("euler"), sigmas)["samples"]
    assert torch.equal(theirs, ours)
    assert counter.total == work < STEPS * BLOCKS * 2


def core_solver(name: str) -> Any:
    return comfy.samplers.sampler_object(name)


def test_ksampler_too(model: Any, counter: BlockCounter) -> None:
    fast = KleinodApplyAcceleration.execute(model, "high").args[0]
    latent = {"samples": torch.zeros(1, 128, 8, 8)}
    texts = random_conditioning(1), random_conditioning(2)
    KSampler().sample(fast, 7, STEPS, 4.0, "euler", "simple", *texts, latent, 1.0)
    (report,) = apply.read_reports(fast, None)
    assert counter.total == report.computed * BLOCKS * 2 < STEPS * BLOCKS * 2


def test_klein_sampler_keeps_and_reports_what_the_model_came_with(
    model: Any, vae: Any, counter: BlockCounter
) -> None:
    fast = KleinodApplyAcceleration.execute(model, "high").args[0]
    made = klein_sampler(fast, vae)
    (run,) = json.loads(made[3])["runs"]
    assert "R" in run["pattern"] and title_lines(made[2])["acceleration"]
    assert [report.pattern for report in apply.read_reports(fast, None)] == [run["pattern"]]
    own = json.loads(klein_sampler(fast, vae, acceleration_settings=settings_of(speed=1.2))[3])
    assert own["acceleration"]["speed"] == 1.2, "Klein Sampler's own settings win"


# --- the report of core graphs

GRAPH = {
    "1": {"class_type": "KleinodApplyAcceleration", "inputs": {"model": ["9", 0]}},
    "2": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["1", 0]}},
    "3": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["1", 0]}},
    "4": {"class_type": "KleinodAccelerationReport", "inputs": {"model": ["1", 0], "latent": ["2", 0]}},
    "5": {"class_type": "KleinodAccelerationReport", "inputs": {"model": ["1", 0], "latent": ["3", 0]}},
}


def report_node(node_id: str, model: Any, latent: dict[str, Any]) -> tuple[Any, ...]:
    """Run Klein Acceleration Report as node `node_id` of GRAPH."""
    hidden = types.SimpleNamespace(prompt=GRAPH, unique_id=node_id)
    node = type("Prepared", (KleinodAccelerationReport,), {"hidden": hidden})
    return node.execute(model, latent).args


def run_in(prompt: str, node: str, model: Any, steps: int) -> dict[str, Any]:
    with CurrentNodeContext(prompt, node):
        sigmas = build_schedule("native", steps, 64).sigmas
        return core_sampler(model, core_solver("euler"), sigmas)


def test_the_report_tells_of_the_samplers_before_it(model: Any) -> None:
    fast = KleinodApplyAcceleration.execute(model, "high").args[0]
    first, second = run_in("a", "2", fast, 10), run_in("a", "3", fast, 12)
    latent, line, data, chart = report_node("4", fast, first)
    assert latent is first and chart.shape[0] == 1
    assert [run["steps"] for run in json.loads(data)["runs"]] == [10]
    assert line.startswith("forecast: C")
    assert [run["steps"] for run in json.loads(report_node("5", fast, second)[2])["runs"]] == [12]
    run_in("b", "2", fast, 9)
    assert [run["steps"] for run in json.loads(report_node("4", fast, first)[2])["runs"]] == [9], "the newest"


def test_the_report_of_a_plain_model_says_so(model: Any) -> None:
    latent = {"samples": torch.zeros(1)}
    _, line, data, _ = report_node("4", model, latent)
    assert line.startswith("no acceleration") and json.loads(data) == {"runs": []}


def test_the_line_is_told_when_a_run_ends(model: Any) -> None:
    told: list[Any] = []
    fast = apply.apply_acceleration(model, Acceleration("high"), told.append)
    run_in("a", "2", fast, 10)
    assert [report.steps for report in told] == [10]


def test_a_guider_of_one_branch(model: Any, counter: BlockCounter) -> None:
    fast = KleinodApplyAcceleration.execute(model, "high").args[0]
    guider = BasicGuider.execute(fast, random_conditioning(1)).args[0]
    sigmas = build_schedule("native", STEPS, 64).sigmas
    latent = {"samples": torch.zeros(1, 128, 8, 8)}
    noise = RandomNoise.execute(7).args[0]
    SamplerCustomAdvanced.execute(noise, guider, core_solver("euler"), sigmas, latent)
    (report,) = apply.read_reports(fast, None)
    assert counter.total == report.computed * BLOCKS < STEPS * BLOCKS


# --- the same value at Runware


def test_the_nodes_value_is_the_api_s_options() -> None:
    value = settings_of(
        acceleration="medium", db_cache=True, db_cache_threshold=0.1, db_cache_skip_interval=7,
        cache_start_step_percentage=20, cache_end_step_percentage=80, cache_max_consecutive_steps=4,
    )  # fmt: skip
    task = RunwareRequest("a fox", accelerator=value.to_runware()).to_task()
    assert task["acceleration"] == "medium"
    assert task["acceleratorOptions"] == {
        "dbCache": True,
        "dbCacheThreshold": 0.1,
        "dbCacheSkipInterval": 7,
        "cacheStartStepPercentage": 20,
        "cacheEndStepPercentage": 80,
        "cacheMaxConsecutiveSteps": 4,
    }


def test_what_is_not_set_is_not_sent() -> None:
    untouched = RunwareRequest("a fox", accelerator=settings_of().to_runware()).to_task()
    assert untouched["acceleration"] == "high" and "acceleratorOptions" not in untouched


def test_thresholds_reach_runware_in_its_own_direction() -> None:
    dials = {"fb_cache": True, "fb_cache_threshold": 0.9, "threshold_meaning": HIGHER_REUSES_MORE}
    task = RunwareRequest("a fox", accelerator=settings_of(**dials).to_runware()).to_task()
    assert task["acceleratorOptions"]["fbCacheThreshold"] == pytest.approx(0.1)
