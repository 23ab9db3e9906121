"""ComfyUIs that lack a name we rely on: one feature is off, says so in a sentence, and the rest works.

A child process imports ComfyUI once; each case is a fork of it, in which the name is really removed before
the pack is loaded. What a case does is in missing_seams_child.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kleinod.nodes.base import seams

from tools.launch.environment import Environment

CHILD = Path(__file__).with_name("missing_seams_child.py")
MODULES = sorted({seam.place.partition(":")[0] for seam in seams.SEAMS})
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a case is a fork")


@pytest.fixture(scope="module")
def cases(comfy_environment: Environment, repository: Path) -> dict[str, dict]:
    command = [sys.executable, str(CHILD), str(repository), str(comfy_environment.comfyui), *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)  # minutes on a busy machine
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def sentences_of(case: dict, *titles: str) -> None:
    """Exactly these features were said to be off at the start, each in a sentence of its own."""
    assert "error" not in case, case["error"]
    assert [said.split(" is off: ")[0] for said in case["said"]] == list(titles)
    assert all(said.endswith(".") and "\n" not in said and "ComfyUI (" in said for said in case["said"])
    assert all("Traceback" not in said for said in case["said"])


def test_a_whole_comfyui_has_all(cases: dict[str, dict]) -> None:
    case = cases["nothing"]
    sentences_of(case)
    for settings in ("accelerated", "blocks"):
        assert case[settings] != case["plain"], "the settings do skip something"
    assert case["lora"] != case["bare"]


def test_without_a_look_at_wrappers_acceleration_alone_is_off(cases: dict[str, dict]) -> None:
    case = cases["acceleration"]
    sentences_of(case, "Acceleration", "Klein Compare and Klein Calibrate")
    assert case["accelerated"] == case["plain"] == cases["nothing"]["plain"]
    assert "Acceleration is off" in case["info"] and "Every step is computed" in case["info"]
    assert case["lora"] == cases["nothing"]["lora"] and case["staged"] == cases["nothing"]["staged"]


def test_where_the_blocks_speak_other_words_block_caches_alone_are_off(cases: dict[str, dict]) -> None:
    case = cases["blocks"]
    sentences_of(
        case,
        "Klein Compare and Klein Calibrate",
        "Block caching (first block, dual block, tea)",
        "The reuse of references' keys",
    )
    assert case["blocks"] == case["plain"] and "Block caching" in case["blocks_info"]
    assert case["accelerated"] == cases["nothing"]["accelerated"], "the forecast needs no block"


def test_without_adapters_loras_run_beside_the_layers(cases: dict[str, dict]) -> None:
    case = cases["adapters"]
    sentences_of(case, "Writing LoRAs into the weights")
    assert case["lora"] == cases["nothing"]["beside"]
    assert "They run beside the layers instead" in case["lora_info"]
    assert case["accelerated"] == cases["nothing"]["accelerated"]


def test_without_wrappers_loras_go_into_the_weights_and_a_stage_is_refused(cases: dict[str, dict]) -> None:
    case = cases["wrappers"]
    assert "Running LoRAs beside the layers" in [said.split(" is off: ")[0] for said in case["said"]]
    assert case["lora"] == cases["nothing"]["lora"] == case["beside"]
    assert "They go into the weights instead" in case["beside_info"]
    assert case["staged"].startswith("InputError: ") and "Set its stage to both." in case["staged"]
    assert case["nano"].startswith("MissingSeam: klein-nano is off: ")


def test_without_a_tokenizer_the_text_encoder_stays_whole(cases: dict[str, dict]) -> None:
    case = cases["trimming"]
    sentences_of(case, "The shortening of the text encoder")
    assert case["clip_of_core"] and "All its layers run" in case["loader_info"]


def test_without_the_guider_the_sampler_says_so(cases: dict[str, dict]) -> None:
    case = cases["sampler"]
    assert case["plain"].startswith("MissingSeam: Klein Sampler is off: ")


def test_recorded_blocks_switch_off_what_would_be_frozen(cases: dict[str, dict]) -> None:
    case = cases["recorded"]
    sentences_of(case)
    assert case["blocks"] == case["plain"] and "recorded CUDA graphs" in case["blocks_info"]
    assert case["beside"] == case["lora"] and "recorded CUDA graphs" in case["beside_info"]
    assert case["staged"].startswith("InputError: ") and "recorded CUDA graphs" in case["staged"]
    assert case["accelerated"] == cases["nothing"]["accelerated"]
    assert cases["recorded, switched off"]["blocks"] == cases["nothing"]["blocks"]


@pytest.mark.parametrize("module", MODULES)
def test_without_a_whole_module_the_pack_starts_and_what_needs_it_is_off(
    cases: dict[str, dict], module: str
) -> None:
    case, whole = cases[f"without {module}"], cases["without nothing"]
    in_order = dict.fromkeys(feature for seam in seams.SEAMS for feature in seam.features)
    needing = {
        feature for seam in seams.SEAMS if seam.place.startswith(f"{module}:") for feature in seam.features
    }
    sentences_of(case, *(feature.title for feature in in_order if feature in needing))
    assert case["nodes"] == whole["nodes"], "saved workflows keep their nodes"
    plain, lora, keep = case["plain"], case["lora"], case["keep"]
    if seams.SAMPLING in needing:
        assert plain.startswith("MissingSeam: Klein Sampler is off: ")
    else:
        assert plain == whole["plain"]
    if seams.LORA_STACK in needing:
        assert lora.startswith("MissingSeam: Klein LoRA Stack is off: ")
    elif seams.SAMPLING not in needing:
        assert lora == whole["beside" if seams.LORAS_IN_WEIGHTS in needing else "lora"]
    if seams.KEEP in needing:
        assert keep.startswith("MissingSeam: Klein Keep is off: ")
    else:
        assert keep == whole["keep"]
