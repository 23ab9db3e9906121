"""Every failure a newcomer meets, provoked for real: a calm sentence that names the input and what to do.

The failures are ComfyUI's and PyTorch's own. Memory runs out where a model wrapper of the public kind asks
PyTorch for more than any machine has, or raises what a full graphics card raises.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from kleinod.nodes.base import notices
from kleinod.nodes.faces import detectors
from kleinod.nodes.faces.nodes import KleinodFaceRefiner
from kleinod.nodes.loras.nodes import KleinodLoraStack
from kleinod.nodes.model.choices import AUTOMATIC, NANO
from kleinod.nodes.model.engine import ATTACHMENT, facts_of
from kleinod.nodes.model.facts import facts_from_sizes, notice_processor
from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.remote.nodes import KleinodBFL, KleinodRunware
from kleinod.nodes.sampling.nodes import KleinodSampler
from safetensors.torch import save_file

from tests.core.yolo_files import NANO_FILE, PATHS, Part, read_blueprint, write_pt
from tests.emulator import Emulator
from tests.model.headers import write_shapes
from tests.model.tiny_klein import dit_shapes, encoder_shapes, random_conditioning
from tests.remote.stage import set_stage

BASE, NINE = "flux-2-klein-base-4b.safetensors", "flux-2-klein-9b.safetensors"
_TODO = r"\b(set|lower|pick|choose|connect|download|save|install|check|close|put|use|load|queue|start|make)\b"
_NOT_FOR_ARTISTS = r"Error|Exception|Traceback|tensor|mat1|None|<|\bobject\b|\.py\b|0x[0-9a-f]{4}|\bself\b"


def is_friendly(sentence: str) -> bool:
    """What is wrong first, what to do next, in at most three short sentences without a programmer's words."""
    plain = re.sub(r"\"[^\"]*\"|[\w./-]*\.(safetensors|pt|gguf)", "it", sentence)
    return (
        "\n" not in sentence
        and sentence.endswith(".")
        and len(sentence) <= 400
        and len(re.findall(r"[.!?](?: |$)", plain)) <= 4
        and re.search(_TODO, plain, re.IGNORECASE) is not None
        and re.search(_NOT_FOR_ARTISTS, plain) is None
    )


@pytest.fixture(scope="module")
def nano() -> tuple[Any, Any, Any]:
    return load(NANO)[:3]


def load(diffusion_model: str, text_encoder: str = AUTOMATIC, vae: str = AUTOMATIC) -> tuple:
    return KleinodLoader.execute(diffusion_model, "default", text_encoder, "default", vae, "auto").args


# --- files


@pytest.fixture
def files(model_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Headers of the real files and nothing in them, and what else lies in a newcomer's folders."""
    dit, encoders, vaes = (model_folders / name for name in ("diffusion_models", "text_encoders", "vae"))
    write_shapes(dit / BASE, dit_shapes(3072, 5, 20, 7680))
    write_shapes(dit / NINE, dit_shapes(4096, 8, 24, 12288))
    write_shapes(dit / "sdxl.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)})
    write_shapes(encoders / "qwen_3_4b.safetensors", encoder_shapes(2560, 36, 151936, 4096, 1024, 9728))
    write_shapes(encoders / "t5xxl.safetensors", {"encoder.block.0.layer.0.SelfAttention.k.weight": (4, 4)})
    write_shapes(vaes / "ae.safetensors", {"decoder.conv_in.weight": (512, 16, 3, 3)})
    sd = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_"
    lora = {f"{sd}down.weight": torch.ones(4, 320), f"{sd}up.weight": torch.ones(320, 4)}
    save_file(lora, model_folders / "loras" / "sd.safetensors")
    monkeypatch.setattr(folder_paths, "models_dir", str(model_folders))
    known = {k: v for k, v in folder_paths.folder_names_and_paths.items() if not k.startswith("ultralytics")}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    bbox = model_folders / "ultralytics" / "bbox"
    bbox.mkdir(parents=True)
    blueprint = read_blueprint(NANO_FILE)
    parts = {**blueprint.network.parts, "4": Part("A2C2f", {}, {})}
    monkeypatch.setitem(PATHS, "A2C2f", "ultralytics.nn.modules.block.A2C2f")
    write_pt(bbox / "face_v12.pt", replace(blueprint, network=Part("Sequential", {}, parts)))
    return model_folders


def refine(nano: tuple, **changes: Any) -> None:
    model, clip, vae = nano
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    inputs = {
        "image": picture, "model": model, "clip": clip, "vae": vae, "detector": detectors.NANO_FACES,
        "seed": 1, "order": "size", "top_k": 0, "min_size": 0, "max_size": 0,
    }  # fmt: skip
    KleinodFaceRefiner.execute(**inputs | changes)


def stack(nano: tuple, rows: str) -> None:
    KleinodLoraStack.execute(nano[0], rows=rows)


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (lambda nano: load(BASE, "t5xxl.safetensors"), ["text_encoder", "T5", "qwen_3_4b.safetensors"]),
        (lambda nano: load(NINE, "qwen_3_4b.safetensors"), ["text_encoder", "Qwen3-4B", "9B", "Qwen3-8B"]),
        (lambda nano: load(NINE), ["text_encoder is automatic", "download qwen_3_8b"]),
        (lambda nano: load(BASE, vae="ae.safetensors"), ["vae", "FLUX.1", "flux2-vae.safetensors"]),
        (lambda nano: load(BASE), ["vae is automatic", "download flux2-vae.safetensors"]),
        (lambda nano: load("sdxl.safetensors"), ["diffusion_model", "not FLUX.2", BASE]),
        (lambda nano: load("klein.gguf"), ["diffusion_model", "ComfyUI-GGUF", "install"]),
        (lambda nano: stack(nano, "sd.safetensors 1"), ["sd.safetensors", "Stable Diffusion", "Use a LoRA"]),
        (lambda nano: stack(nano, "gone.safetensors 1"), ["row 1", "gone.safetensors", "models/loras"]),
        (lambda nano: refine(nano, detector="bbox/gone.pt"), ["detector", "ultralytics/bbox", "press R"]),
        (lambda nano: refine(nano, detector="bbox/face_v12.pt"), ["detector", "is not installed", "YOLOv8"]),
        (lambda nano: refine(nano, positive=random_conditioning(1, width=12288)), ["positive", "Qwen3-8B"]),
        (
            lambda nano: KleinodSampler.execute(
                nano[0], random_conditioning(1, width=7680), random_conditioning(2), nano[2], 128, 128, 2,
                4.0, 1, "Default", 1,
            ),
            ["positive", "Qwen3-4B", "klein-nano"],
        ),
    ],
)  # fmt: skip
def test_wrong_and_missing_files(files: Path, nano: tuple, fail: Callable, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        fail(nano)
    sentence = str(caught.value)
    assert all(word in sentence for word in words), sentence
    assert is_friendly(sentence), sentence


# --- memory


def full_card(*arguments: Any, **options: Any) -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 7.60 GiB"
    )


def full_computer(*arguments: Any, **options: Any) -> None:
    torch.empty(2**50)


def on_a_full_machine(model: Any, wrapper: Callable) -> Any:
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapper)
    return model


def sample(nano: tuple, wrapper: Callable, **changes: Any) -> None:
    prompt = KleinodPrompt.execute(nano[1], "a fox", "").args
    inputs = {
        "model": on_a_full_machine(nano[0], wrapper), "positive": prompt[0], "negative": prompt[1],
        "vae": nano[2], "width": 128, "height": 128, "steps": 2, "guidance": 4.0, "seed": 1,
        "scheduler": "Default", "results": 1,
    }  # fmt: skip
    KleinodSampler.execute(**inputs | changes)


def references(megapixels: float = 1.0) -> Any:
    return KleinodReferences.execute(
        {"image_1": torch.rand(1, 64, 64, 3)}, ["auto"], [megapixels], [1], ["white"], ["hide the rest"]
    ).args[0]


def prompt_with_references(nano: tuple) -> list:
    return KleinodPrompt.execute(nano[1], "image 1", "", references(), nano[2]).args[0]


def read_prompt(nano: tuple, **inputs: Any) -> None:
    embedding = next(m for m in nano[1].cond_stage_model.modules() if isinstance(m, torch.nn.Embedding))
    hook = embedding.register_forward_pre_hook(full_card)
    try:
        KleinodPrompt.execute(nano[1], "a fox", "", **inputs)
    finally:
        hook.remove()


BOX = {"x": 8, "y": 8, "width": 40, "height": 40}

OUT_OF_MEMORY = {
    "sampling, large": (
        lambda nano: sample(nano, full_card, width=2048, height=1024),
        "Out of memory while painting 2048x1024. What helps: lower width and height; choose fp8_e4m3fn as "
        "weight_dtype in Klein Loader.",
    ),
    "sampling, with an image": (
        lambda nano: sample(nano, full_card, image=torch.rand(1, 800, 800, 3)),
        "Out of memory while painting 800x800. What helps: connect a smaller image; choose",
    ),
    "sampling, accelerated": (
        lambda nano: sample(nano, full_card, steps=8, acceleration="high"),
        "Out of memory while painting 128x128. What helps: set acceleration to none; choose",
    ),
    "sampling, with references": (
        lambda nano: sample(nano, full_card, positive=prompt_with_references(nano), width=1024),
        "Out of memory while painting 1024x128 with 1 reference. What helps: lower width and height; connect "
        "fewer references or",
    ),
    "the computer's own memory": (
        lambda nano: sample(nano, full_computer, width=1024),
        "Out of memory while painting 1024x128. What helps: lower width and height; choose",
    ),
    "faces": (
        lambda nano: refine((on_a_full_machine(nano[0], full_card), *nano[1:]), bounding_boxes=[BOX]),
        "Out of memory while painting faces. What helps: lower inpaint_size in Klein Face Settings; choose",
    ),
    "the prompt": (
        lambda nano: read_prompt(nano),
        "Out of memory while reading the prompt. What helps: set text_encoder_device in Klein Loader to cpu; "
        "choose",
    ),
    "the prompt and references": (
        lambda nano: read_prompt(nano, references=references(), vae=nano[2]),
        "Out of memory while reading the prompt and its references. What helps: lower megapixels in Klein "
        "References; set",
    ),
}


@pytest.mark.parametrize("name", OUT_OF_MEMORY)
def test_out_of_memory_stays_what_it_is_and_says_what_to_change(nano: tuple, name: str) -> None:
    fail, words = OUT_OF_MEMORY[name]
    with pytest.raises(Exception) as caught:  # noqa: B017 - which kind it is, is asserted below
        fail(nano)
    sentence = str(caught.value)
    assert sentence.startswith(words) and is_friendly(sentence), sentence
    if "computer" in name:
        assert isinstance(caught.value, MemoryError)
    else:
        assert comfy.model_management.is_oom(caught.value), "ComfyUI must unload its models"


def test_out_of_memory_while_decoding(nano: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even tiles fit: what VAE.decode raises then is told as well."""
    monkeypatch.setattr(nano[2].first_stage_model, "decode", full_card)
    with pytest.raises(torch.OutOfMemoryError, match="Out of memory while painting 128x128"):
        sample(nano, lambda executor, *arguments, **options: executor(*arguments, **options))


def test_other_errors_are_left_alone(nano: tuple) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise KeyError("a bug of somebody's")

    with pytest.raises(KeyError, match="a bug"):
        sample(nano, broken)
    assert not notices.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


# --- services


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    with set_stage(monkeypatch, tmp_path, "the-right-key") as running:
        yield running


def ask(node: Any) -> str:
    inputs = {"width": 256, "height": 192, "seed": 0}
    if node is KleinodRunware:
        inputs |= {"positive_prompt": "a fox", "negative_prompt": "", "steps": 28, "cfg_scale": 3.5}
        inputs |= {"number_results": 1}
    else:
        inputs["prompt"] = "a fox"
    clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {}})
    with pytest.raises(Exception) as caught:  # noqa: B017 - the sentence is what counts
        asyncio.run(clone.execute(**inputs))
    return str(caught.value)


@pytest.mark.parametrize(("node", "title"), [(KleinodRunware, "Runware"), (KleinodBFL, "BFL")])
def test_services(services: Emulator, monkeypatch: pytest.MonkeyPatch, node: Any, title: str) -> None:
    panel = "Settings > Kleinod > API keys"
    without = ask(node)
    assert without.startswith(f"There is no {title} API key yet") and panel in without
    monkeypatch.setenv(f"{title.upper()}_API_KEY", "the-wrong-key")
    refused = ask(node)
    assert refused.startswith(f"{title} did not accept the API key") and panel in refused
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"KLEINOD_{title.upper()}_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        dead = ask(node)
    assert dead.startswith(f"{title} could not be reached") and "Nothing was sent or billed" in dead
    for sentence in (without, refused, dead):
        assert is_friendly(sentence.replace("Settings > Kleinod > API keys", "the settings")), sentence
    assert services.accepted == 0


# --- no graphics card


def test_real_weights_on_the_processor_get_a_calm_word(nano: tuple) -> None:
    real = facts_from_sizes(3072, 5, 20, 7680, file_name=BASE)
    for size, words in (((1024, 1024), "minutes"), ((256, 256), "up to a minute")):
        notice = notice_processor(real, "cpu", size)
        assert words in notice and f"{size[0]}x{size[1]}" in notice and "It is no error" in notice
        assert is_friendly(notice), notice
    assert notice_processor(real, "cuda") == notice_processor(facts_of(nano[0]), "cpu") == ""
    assert notice_processor(None, "cpu") == ""

    model = nano[0].clone()
    model.set_attachments(ATTACHMENT, real)
    prompt = KleinodPrompt.execute(nano[1], "a fox", "").args
    report = KleinodSampler.execute(
        model, prompt[0], prompt[1], nano[2], 128, 128, 1, 1.0, 1, "Default", 1
    ).args[2]  # fmt: skip
    assert "No graphics card is in use" in report
