"""Klein Compare and Klein Calibrate on the tiny Klein, by counting real block executions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from kleinod.nodes.acceleration.calibration_files import BUILT_IN, RULE, list_choices, load_calibration
from kleinod.nodes.acceleration.nodes import KleinodAcceleration
from kleinod.nodes.acceleration.patch import accelerate
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.sampling.engine import sample_pictures
from kleinod.nodes.sampling.request import SamplingRequest
from kleinod.nodes.study import calibrating, comparison, engine
from kleinod.nodes.study.nodes import KleinodCalibrate, KleinodCompare

from tests.model.acceleration_rig import BLOCKS, BlockCounter
from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae

STEPS = 8
ASKED = SamplingRequest(128, 128, STEPS, 4.0, 7)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return {
        "model": load_tiny_model(),
        "positive": random_conditioning(1),
        "negative": random_conditioning(2),
        "vae": tiny_vae(),
    }


@pytest.fixture
def counter(parts: dict[str, Any]) -> Iterator[BlockCounter]:
    counter = BlockCounter.watch(parts["model"])
    yield counter
    counter.close()


@pytest.fixture
def user_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    return tmp_path


def test_every_run_costs_what_the_table_says(parts: dict[str, Any], counter: BlockCounter) -> None:
    """Work told and blocks really run agree, run by run, for caches of ours and of others and for none."""
    own = Acceleration("medium", guidance_interval=2, forecast_error_limit=10.0)
    candidates = comparison.list_candidates(STEPS, fewer_steps=False, own=own)
    told: list[str] = []
    counts: list[int] = []

    def tell(text: str) -> None:
        told.append(text)
        counts.append(counter.total)

    outcomes = engine.compare(**parts, request=ASKED, candidates=candidates, tell=tell)
    ran = [after - before for before, after in zip(counts[1:], [*counts[2:], counter.total], strict=True)]
    assert ran[0] == 2 * STEPS * BLOCKS
    assert [outcome.work for outcome in outcomes] == pytest.approx([blocks / ran[0] for blocks in ran])
    assert min(ran[1:4]) < ran[0]
    assert [text.split(": ")[-1] for text in told[1:]] == [candidate.name for candidate in candidates]


def test_the_first_picture_is_klein_samplers(parts: dict[str, Any]) -> None:
    """Also on a model that Klein Apply Acceleration has been at: the yardstick skips nothing."""
    plain = sample_pictures(**parts, request=ASKED).image
    faster = accelerate(parts["model"], Acceleration("high", forecast_error_limit=10.0))
    candidates = comparison.list_candidates(STEPS, True, False, False, False)[:1]
    [outcome] = engine.compare(**{**parts, "model": faster}, request=ASKED, candidates=candidates)
    assert torch.equal(outcome.image, plain) and outcome.ssim == pytest.approx(1.0) and outcome.work == 1


def test_the_node_hands_out_sheet_table_and_plot(parts: dict[str, Any]) -> None:
    sheet, table, plot, data = KleinodCompare.execute(
        **parts, width=128, height=128, steps=STEPS, guidance=4.0, seed=7, presets=False,
        fewer_steps=False, easycache=False,
    ).args  # fmt: skip
    assert sheet.shape[0] == plot.shape[0] == 1 and sheet.shape[3] == plot.shape[3] == 3
    assert [line.split("  ")[0] for line in table.splitlines()[1:]] == ["every step", "Kleinod Fast, 4 steps"]
    told = json.loads(data)
    assert [run["name"] for run in told["runs"]] == ["every step", "Kleinod Fast, 4 steps"]
    assert told["request"] == {"width": 128, "height": 128, "steps": STEPS, "guidance": 4.0, "seed": 7}
    assert told["runs"][0]["psnr"] is None and told["runs"][1]["psnr"] > 0
    assert len(data) < 1500 and set(told["machine"]) >= {"device", "torch", "weights"}


def test_an_interrupt_ends_the_comparison(parts: dict[str, Any]) -> None:
    candidates = comparison.list_candidates(STEPS)

    def tell(text: str) -> None:
        if text.startswith("2 of"):
            comfy.model_management.interrupt_current_processing()

    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            engine.compare(**parts, request=ASKED, candidates=candidates, tell=tell)
    finally:
        comfy.model_management.interrupt_current_processing(False)


def test_calibrate_leaves_a_file_that_klein_acceleration_offers(
    parts: dict[str, Any], user_folder: Path
) -> None:
    assert list_choices() == [BUILT_IN, RULE]
    [report] = KleinodCalibrate.execute(
        **parts, width=128, height=128, steps=STEPS, guidance=4.0, seed=7, pictures=2, name="mine"
    ).args
    assert "'mine', from 2 prompts, 8 steps, guidance 4" in report and "with clip connected" in report
    assert list_choices() == [BUILT_IN, RULE, "mine"]
    value = load_calibration("mine")
    assert len(value.tea_coefficients) == 4 and value.tea_limit > 0
    chosen, info = KleinodAcceleration.execute(acceleration="medium", calibration="mine").args
    assert chosen.calibration == value and "mine" in info
    assert KleinodAcceleration.execute(acceleration="medium").args[0].calibration is None
    calibrations = [
        choice for choice in KleinodAcceleration.INPUT_TYPES()["optional"]["calibration"][1]["options"]
    ]
    assert calibrations == [BUILT_IN, RULE, "mine"]


def test_watching_changes_nothing(parts: dict[str, Any], user_folder: Path) -> None:
    before = sample_pictures(**parts, request=ASKED).image
    tracer = calibrating.Tracer()
    watched = {**parts, "model": tracer.watch(parts["model"])}
    assert torch.equal(sample_pictures(**watched, request=ASKED).image, before)
    assert len(tracer.trace.sigmas) == STEPS and tracer.trace.signal[0] is None
    assert all(signal > 0 for signal in tracer.trace.signal[1:])


def test_calibrate_refuses_names_that_are_no_file(parts: dict[str, Any], user_folder: Path) -> None:
    with pytest.raises(ValueError, match="it becomes a file"):
        KleinodCalibrate.execute(
            **parts, width=128, height=128, steps=STEPS, guidance=4.0, seed=7, pictures=1, name="../x"
        )


def test_prompts_without_a_text_encoder_are_refused(parts: dict[str, Any], user_folder: Path) -> None:
    with pytest.raises(ValueError, match="prompts has text, but clip is empty"):
        KleinodCalibrate.execute(
            **parts, width=128, height=128, steps=STEPS, guidance=4.0, seed=7, pictures=1, name="x",
            prompts="a fox",
        )  # fmt: skip
