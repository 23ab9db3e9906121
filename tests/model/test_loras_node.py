"""Klein LoRA Stack as ComfyUI calls it: wires, chains, missing files, and klein-nano."""

from __future__ import annotations

import gc
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from kleinod.nodes.base.values import LoraRow, Loras, StageBoundary
from kleinod.nodes.loras import library
from kleinod.nodes.loras.engine import read_architecture
from kleinod.nodes.loras.nodes import KleinodLoraStack
from kleinod.nodes.loras.tensors import LoraFile
from kleinod.nodes.model.nano import load_nano

from tests.model.acceleration_rig import sample, with_short_text
from tests.model.lora_files import FORMATS, coarse_state, load_coarse_model, write_lora
from tests.model.tiny_klein import load_tiny_model

STATE = coarse_state()
WEIGHT = "single_blocks.1.linear2"


@pytest.fixture(scope="module")
def model() -> Any:
    return load_coarse_model()


@pytest.fixture
def folder(model_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/loras with a.safetensors and sub/b.safetensors, and a user folder of its own."""
    loras = model_folders / "loras"
    (loras / "sub").mkdir()
    write_lora(loras / "a.safetensors", FORMATS["kohya"], seed=1)
    write_lora(loras / "sub" / "b.safetensors", FORMATS["diffusers with prefix"], seed=2)
    monkeypatch.setattr(
        library.folder_paths, "get_system_user_directory", lambda name: str(model_folders / name)
    )
    library.find_book.cache_clear()
    return loras


def stack(model: Any = None, rows: str = "", **inputs: Any) -> tuple[Any, Loras, list, str]:
    return KleinodLoraStack.execute(model=model, rows=rows, **inputs).args


def change(model: Any, weight: str = WEIGHT) -> torch.Tensor:
    key = f"diffusion_model.{weight}.weight"
    return model.patch_weight_to_device(key, return_weight=True) - STATE[f"{weight}.weight"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_outputs(model: Any, folder: Path) -> None:
    patched, loras, lora_stack, report = stack(
        model, "a.safetensors 0.5", lora="sub/b.safetensors", weight=-1.0, stage="low", boundary_at=0.25
    )
    boundary = StageBoundary(at=0.25)
    assert loras.rows == (
        LoraRow("a.safetensors", 0.5, boundary=boundary),
        LoraRow("sub/b.safetensors", -1.0, "low", boundary=boundary),
    )
    assert lora_stack == [("a.safetensors", 0.5, 0.5), ("sub/b.safetensors", -1.0, -1.0)]
    assert change(patched).abs().max() > 0
    assert report.startswith("2 of 2 LoRAs act: ")
    assert "low stage (not in the first 25% of the steps)" in report


@pytest.mark.parametrize(
    "rows", ["", "# nothing", "gone.safetensors 0", "gone.safetensors off", "0.5 air=a:b"]
)
def test_nothing_to_do_gives_back_the_model_itself_and_reads_nothing(
    rows: str, model: Any, folder: Path
) -> None:
    patched, _, lora_stack, _ = stack(model, rows)
    assert patched is model
    assert lora_stack == []


def test_without_a_model_rows_are_collected_unread(folder: Path) -> None:
    given, loras, lora_stack, report = stack(None, "gone.safetensors 0.5 high air=civitai:1@2")
    assert given is None
    assert loras.to_runware() == [{"model": "civitai:1@2", "weight": 0.5, "transformer": "high"}]
    assert lora_stack == [("gone.safetensors", 0.5, 0.5)]
    assert "No model connected" in report


def test_a_weight_scales_the_change(model: Any, folder: Path) -> None:
    changes = [change(stack(model, f"a.safetensors {weight}")[0]) for weight in (0.5, 1.0, -2.0)]
    assert torch.equal(2 * changes[0], changes[1]) and torch.equal(-2 * changes[1], changes[2])


def lora_bytes() -> int:
    """Bytes of all tensors of LoRA files that anybody still holds."""
    gc.collect()
    files = [found for found in gc.get_objects() if type(found) is LoraFile]
    return sum(tensor.nbytes for file in files for tensor in file.tensors.values())


def test_nothing_outlives_the_models_that_use_it(model: Any, folder: Path) -> None:
    """20 different stacks, of each kind; and two that are there at once share what they read."""
    assert lora_bytes() == 0
    ways = ("into the weights", "beside the weights")
    for number in range(20):
        made = stack(
            model, f"a.safetensors 0.0{number + 1} {'high' * (number % 3 == 0)}", apply=ways[number % 2]
        )
        one = lora_bytes()
        assert one > 100_000
        del made
    assert lora_bytes() == 0
    first = stack(model, "a.safetensors 0.5")[0]
    second = stack(model, "a.safetensors 0.25 low")[0]
    assert lora_bytes() == one
    further = second.clone()
    del first, second
    assert lora_bytes() == one
    del further
    assert lora_bytes() == 0


def test_rows_that_came_with_the_model_are_not_applied_twice(model: Any, folder: Path) -> None:
    first, loras, lora_stack, _ = stack(model, "a.safetensors 0.5")
    by_model = stack(first, "sub/b.safetensors")
    by_both = stack(first, "sub/b.safetensors", loras=loras)
    by_stack = stack(first, "sub/b.safetensors", lora_stack=lora_stack)
    assert torch.equal(change(by_both[0]), change(by_model[0]))
    assert torch.equal(change(by_stack[0]), change(by_model[0]))
    assert "a.safetensors: in the model already, not applied again" in by_both[3]
    assert [row.file for row in by_both[1].rows] == ["a.safetensors", "sub/b.safetensors"]
    # On the bare model they are wanted, and the same row written into a second stack is wanted as well.
    bare = stack(model, "sub/b.safetensors", loras=loras)
    assert torch.equal(change(bare[0]), change(by_model[0]))
    twice = stack(first, "a.safetensors 0.5")
    assert torch.equal(change(twice[0]), 2 * change(first))


def test_a_stack_of_another_pack_comes_first(model: Any, folder: Path) -> None:
    patched, loras, lora_stack, _ = stack(
        model, "a.safetensors 0.5", lora_stack=[(os.path.join("sub", "b.safetensors"), 0.25, 1.0)]
    )
    assert [(row.file, row.weight) for row in loras.rows] == [
        ("sub/b.safetensors", 0.25),
        ("a.safetensors", 0.5),
    ]
    alone = change(stack(model, "a.safetensors 0.5")[0]) + change(stack(model, "b 0.25")[0])
    assert torch.equal(change(patched), alone)


def test_missing_files_stop_at_queue_time_with_the_row(folder: Path) -> None:
    check = KleinodLoraStack.validate_inputs
    assert check(rows="a.safetensors\nsub/b.safetensors 2", lora="a.safetensors") is True
    text = check(rows="a.safetensors\n\ngone.safetensors 2", lora="none")
    assert text.startswith('LoRA row 2: "gone.safetensors" is not in models/loras')
    assert check(rows="gone.safetensors 2", missing_files="skip the row") is True
    assert check(rows="gone.safetensors off\ngone2 0", lora="none") is True
    assert "row 1" in check(rows="", lora="gone.safetensors")
    assert check(rows="a.safetensors 9").startswith("rows, line 1: ")
    assert check(rows=None, lora=None, missing_files=None) is True  # linked: known when it runs


def test_missing_files_are_skipped_where_the_user_chose_that(model: Any, folder: Path) -> None:
    rows = "gone.safetensors\na.safetensors 0.5"
    with pytest.raises(ValueError, match='LoRA row 1: "gone.safetensors"'):
        stack(model, rows)
    patched, _, _, report = stack(model, rows, missing_files="skip the row")
    assert torch.equal(change(patched), change(stack(model, "a.safetensors 0.5")[0]))
    assert 'Row 1 skipped: "gone.safetensors"' in report


def test_a_renamed_file_is_found_by_its_hash_at_both_times(model: Any, folder: Path) -> None:
    row = f"old name.safetensors 0.5 sha256={digest(folder / 'sub' / 'b.safetensors')}"
    assert KleinodLoraStack.validate_inputs(rows=row, lora="none") is True
    patched, _, _, report = stack(model, row)
    assert torch.equal(change(patched), change(stack(model, "sub/b.safetensors 0.5")[0]))
    assert "Found by its sha256 as sub/b.safetensors" in report
    assert f"sha256={digest(folder / 'sub' / 'b.safetensors')}" in report.splitlines()[-1]


def test_the_report_names_trigger_words_of_the_file_or_beside_it(model: Any, folder: Path) -> None:
    (folder / "a.txt").write_text("anna woman, red\x07hat\n")
    assert "   Trigger words: anna woman, red?hat" in stack(model, "a.safetensors")[3].splitlines()
    assert "Trigger words" not in stack(model, "b")[3]


def test_the_fingerprint_follows_the_files_that_act(folder: Path) -> None:
    def fingerprint(rows: str) -> str:
        return KleinodLoraStack.fingerprint_inputs(rows=rows, lora="none")

    first, off = fingerprint("a.safetensors"), fingerprint("a.safetensors off")
    write_lora(folder / "a.safetensors", FORMATS["kohya"], seed=9)
    os.utime(folder / "a.safetensors", ns=(1, 1))
    assert fingerprint("a.safetensors") != first
    assert fingerprint("a.safetensors off") == off
    assert fingerprint("gone.safetensors") == "gone.safetensors not found"


def test_other_sizes_and_other_models_are_refused(folder: Path) -> None:
    wide = load_tiny_model(hidden=256)
    with pytest.raises(ValueError, match="a.safetensors.* was trained for .*width 128.*width 256"):
        stack(wide, "a.safetensors")
    other = load_tiny_model()
    del other.model.diffusion_model.double_stream_modulation_img
    with pytest.raises(ValueError, match="Klein LoRA Stack knows FLUX.2"):
        stack(other, "a.safetensors")


def test_a_layer_too_many_is_left_out_and_told(model: Any, folder: Path) -> None:
    """A LoRA with a module that this model lacks, among many it has, is used without it."""
    weights = {name: shape for name, shape in list(_linear().items()) if "txt_mlp" not in name}
    write_lora(folder / "c.safetensors", FORMATS["bare BFL"], weights=weights)
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "c.safetensors") | {"vector_in.in_layer.lora_A.weight": torch.ones(4, 8)}
    save_file(tensors, folder / "c.safetensors")
    report = stack(model, "c.safetensors")[3]
    assert f"{len(weights)} of {len(weights) + 1} modules applied" in report
    assert "Not used: vector_in.in_layer: incomplete: half of a pair is missing." in report


def _linear() -> dict[str, tuple[int, int]]:
    from tests.model.lora_files import linear_weights

    return linear_weights()


def test_klein_nano_takes_loras(folder: Path) -> None:
    """The built-in model: its blocks bear the same names."""
    nano = load_nano()[0]
    shapes = {name: shape for name, shape in read_architecture(nano).shapes.items() if len(shape) == 2}
    write_lora(folder / "nano.safetensors", FORMATS["OneTrainer"], weights=_nano_weights(shapes))
    plain = nano.model_state_dict()["diffusion_model.single_blocks.0.linear2.weight"].clone()
    patched, _, _, report = stack(nano, "nano.safetensors 0.01")
    assert "Not used" not in report
    key = "diffusion_model.single_blocks.0.linear2.weight"
    assert not torch.equal(patched.patch_weight_to_device(key, return_weight=True), plain)


def _nano_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    return {name: shape for name, shape in shapes.items() if "blocks" in name}


def test_pictures_change_and_come_back(folder: Path) -> None:
    """Loading a stack and going back to the plain model leaves its weights bit for bit."""
    short = with_short_text(load_coarse_model())
    sigmas = torch.tensor([1.0, 0.6, 0.3, 0.0])
    before = sample(short, sigmas)
    stacked = stack(short, "a.safetensors 0.02\nb 0.02 high")[0]
    first = sample(stacked, sigmas)
    assert not torch.equal(first, before)
    assert torch.equal(sample(short, sigmas), before)
    assert torch.equal(sample(stacked, sigmas), first)


def test_comfyui_refuses_the_workflow_with_our_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real check of a queued prompt, links and absent inputs included."""
    import asyncio

    import execution
    from comfy_extras.nodes_preview_any import PreviewAny

    import nodes

    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "KleinodLoraStack", KleinodLoraStack)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "PreviewAny", PreviewAny)

    def queue(rows: str, missing: str = "stop with an error") -> tuple[bool, str]:
        inputs = {"rows": rows, "lora": "none", "weight": 1.0, "stage": "both", "missing_files": missing}
        inputs |= {"stage_boundary": "share of steps", "boundary_at": 0.5, "apply": "into the weights"}
        prompt = {
            "1": {"class_type": "KleinodLoraStack", "inputs": inputs},
            "2": {"class_type": "KleinodLoraStack", "inputs": inputs | {"loras": ["1", 1]}},
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 3]}},
        }
        fine, _, _, problems = asyncio.run(execution.validate_prompt("id", prompt, None))
        return fine, str(problems)

    assert queue("a.safetensors 0.5")[0]
    assert queue("gone.safetensors", "skip the row")[0]
    fine, problems = queue("gone.safetensors")
    assert not fine and 'LoRA row 1: "gone.safetensors" is not in models/loras' in problems


def test_weights_that_comfyui_moves_piece_by_piece(model: Any, folder: Path) -> None:
    """Low memory: ComfyUI rebuilds the adapter from its tensors; on GPUs the weight is float16 meanwhile."""
    import comfy.lora

    patched = stack(model, "a.safetensors 0.5\nb -0.25")[0]
    key = f"diffusion_model.{WEIGHT}.weight"
    ((strength, adapter, *_),) = patched.patches[key]
    moved = comfy.lora.prefetch_prepared_value(adapter, [0], None, None, False)
    assert type(moved) is type(adapter) and moved is not adapter
    weight = STATE[f"{WEIGHT}.weight"]
    wanted = weight + change(patched)
    exact = moved.calculate_weight(weight.clone(), key, strength, 1.0, None, None)
    assert torch.equal(exact, wanted)
    half = moved.calculate_weight(weight.half(), key, strength, 1.0, None, None)
    assert half.dtype == torch.float16 and torch.equal(half, wanted.half())
    assert torch.equal(
        moved.calculate_weight(weight.clone(), key, 0.5, 1.0, None, None), weight + 0.5 * change(patched)
    )
