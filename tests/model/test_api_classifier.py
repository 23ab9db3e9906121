"""`safety.checkContent` with an image classifier that the owner has put on the disk: here a tiny one."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from kleinod_pure.base.errors import InputError
from kleinod_pure.service.classifier import Classifier
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from tests.core.api_stage import make_png, run_service


def save_classifier(folder: Path, labels: dict[int, str], winner: int) -> str:
    """One whose answer is always the same label."""
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32,
        patch_size=16, id2label=labels,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data.zero_()[winner] = 9.0
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("winner", [0, 1])
def test_a_request_that_asks_is_told_what_the_classifier_says(tmp_path: Path, winner: int) -> None:
    folder = save_classifier(tmp_path / "classifier", {0: "normal", 1: "nsfw"}, winner)

    async def run() -> None:
        async with run_service(tmp_path / "home", classifier=folder) as stage:
            for safety in ({"checkContent": True}, {"mode": "fast"}):
                status, told = await stage.run(safety=safety, numberResults=2)
                assert status == 200, told
                assert [item["NSFWContent"] for item in told["data"]] == [bool(winner)] * 2
            for safety in ({}, {"checkContent": False, "mode": "fast"}):
                _, told = await stage.run(safety=safety)
                assert "NSFWContent" not in told["data"][0]

    asyncio.run(run())


def test_another_setting_loads_it_no_second_time(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "classifier", {0: "normal", 1: "nsfw"}, 1)

    async def run() -> None:
        async with run_service(tmp_path / "home", classifier=folder) as stage:
            await stage.run(safety={"checkContent": True})
            shutil.rmtree(folder)
            stage.service.apply(replace(stage.service.settings, keep_seconds=60))
            _, told = await stage.run(safety={"checkContent": True})
            assert told["data"][0]["NSFWContent"]
            with pytest.raises(InputError, match="must be a folder"):
                stage.service.apply(replace(stage.service.settings, flagged=("normal",)))

    asyncio.run(run())


def test_labels_that_do_not_speak_for_themselves_are_named_by_the_owner(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, {0: "sfw", 1: "level 1", 2: "level 2"}, 2)
    with pytest.raises(InputError, match="sfw, level 1, level 2"):
        Classifier(folder).check()
    assert Classifier(folder, ("level 1", "level 2"))(make_png())
    assert not Classifier(folder, ("level 1",))(make_png())


def test_what_is_no_classifier_is_said_and_its_code_never_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a folder on this machine"):
        Classifier(str(tmp_path / "nothing")).check()
    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    auto = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    with pytest.raises(InputError, match="cannot be loaded"):
        Classifier(str(tmp_path)).check()
    assert not mark.exists()
