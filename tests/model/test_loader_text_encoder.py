"""The text encoder without its unread layers gives the conditioning of the whole one, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from kleinod.nodes.base.safetensors import read_header
from kleinod.nodes.model.facts import facts_from_sizes
from kleinod.nodes.model.nodes import KleinodPrompt
from kleinod.nodes.model.pairing import check_text_encoder
from kleinod.nodes.model.text_engine import load_text_encoder
from safetensors.torch import save_file

import nodes as comfy_nodes
from tests.model.tiny_klein import encoder_config, make_text_encoder_state, tiny_clip

FACTS = facts_from_sizes(128, 2, 3, 192)
PROMPTS = ["", "a red apple on a blue background", "an owl, " * 300]
UP_PROJ = "qwen3_4b.transformer.model.layers.20.mlp.up_proj"


def load_ours(folder: Path, state: dict[str, torch.Tensor]) -> Any:
    path = folder / "qwen_3_4b.safetensors"
    save_file(state, path)
    return load_text_encoder(str(path), check_text_encoder(read_header(path, "text_encoder"), FACTS))


def layers_of(clip: Any) -> torch.nn.ModuleList:
    return clip.cond_stage_model.qwen3_4b.transformer.model.layers


def encode(clip: Any, text: str) -> torch.Tensor:
    return comfy_nodes.CLIPTextEncode().encode(clip, text)[0][0][0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layers", [30, 36])
def test_conditioning_is_bit_identical_and_27_layers_run(
    tmp_path: Path, dtype: torch.dtype, layers: int
) -> None:
    whole = tiny_clip(dtype=dtype, layers=layers)
    ours = load_ours(tmp_path, make_text_encoder_state(dtype=dtype, layers=layers))
    ran: list[Any] = []
    for layer in layers_of(ours):
        layer.register_forward_hook(lambda module, *_: ran.append(module))
    for text in PROMPTS:
        ran.clear()
        conditioning = encode(ours, text)
        assert len(ran) == len(set(ran)) == 27
        expected = encode(whole, text)
        assert expected.shape[-1] == 192 and expected.shape[1] >= 512
        assert torch.equal(conditioning, expected), f"{(conditioning - expected).abs().max()} apart"
    assert len(layers_of(whole)) == layers


def test_last_tap_is_not_normed_even_when_the_file_ends_there(tmp_path: Path) -> None:
    """With exactly 27 layers and a final norm, the class alone would return a normed last tap."""
    state = make_text_encoder_state()
    short = {key: tensor for key, tensor in state.items() if not key.startswith(("model.layers.27.",
             "model.layers.28.", "model.layers.29."))}  # fmt: skip
    assert torch.equal(encode(load_ours(tmp_path, short), PROMPTS[1]), encode(tiny_clip(), PROMPTS[1]))


def test_unread_weights_take_no_memory(tmp_path: Path) -> None:
    ours, whole = load_ours(tmp_path, make_text_encoder_state()), tiny_clip()
    layer = sum(weight.numel() for weight in layers_of(whole)[0].parameters())
    saved = sum(p.numel() for p in whole.cond_stage_model.parameters()) - sum(
        p.numel() for p in ours.cond_stage_model.parameters()
    )
    assert saved == 3 * layer + 64, "three layers and the final norm"


def test_attention_mask_and_the_rest_of_the_conditioning_are_core_s(tmp_path: Path) -> None:
    ours = load_ours(tmp_path, make_text_encoder_state())
    (mine,), (core,) = (comfy_nodes.CLIPTextEncode().encode(clip, "owl")[0] for clip in (ours, tiny_clip()))
    assert mine[1].keys() == core[1].keys()
    assert torch.equal(mine[1]["attention_mask"], core[1]["attention_mask"])


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_clip_loras_act_as_on_the_whole_encoder(tmp_path: Path, scale: float) -> None:
    generator = torch.Generator().manual_seed(5)
    lora = {
        f"text_encoders.{UP_PROJ}.lora_up.weight": torch.randn(64, 4, generator=generator),
        f"text_encoders.{UP_PROJ}.lora_down.weight": torch.randn(4, 64, generator=generator),
    }
    ours, whole = load_ours(tmp_path, make_text_encoder_state()), tiny_clip()
    plain = encode(ours, PROMPTS[1])
    changed = [
        encode(comfy.sd.load_lora_for_models(None, clip, lora, 0.0, scale)[1], PROMPTS[1])
        for clip in (ours, whole)
    ]
    assert torch.equal(changed[0], changed[1])
    assert torch.equal(changed[0], plain) == (scale == 0.0)


def test_load_sd_replaces_the_weights(tmp_path: Path) -> None:
    ours = load_ours(tmp_path, make_text_encoder_state())
    missing, unexpected = ours.load_sd(make_text_encoder_state(seed=7))
    assert missing == []
    assert all(
        key.startswith(("model.layers.27", "model.layers.28", "model.layers.29", "model.norm"))
        for key in unexpected
    )
    assert torch.equal(encode(ours, "owl"), encode(tiny_clip(seed=7), "owl"))


def test_clones_and_reload(tmp_path: Path) -> None:
    ours = load_ours(tmp_path, make_text_encoder_state())
    assert torch.equal(encode(ours.clone(), "owl"), encode(ours, "owl"))
    factory, arguments = ours.patcher.cached_patcher_init
    again = factory(*arguments, disable_dynamic=True)
    assert again.model.state_dict().keys() == ours.cond_stage_model.state_dict().keys()


def test_cpu_device(tmp_path: Path) -> None:
    state = make_text_encoder_state()
    load_ours(tmp_path, state)
    path = tmp_path / "qwen_3_4b.safetensors"
    sizes = check_text_encoder(read_header(path), FACTS)
    clip = load_text_encoder(str(path), sizes, device="cpu")
    assert clip.patcher.load_device == clip.patcher.offload_device == torch.device("cpu")


def test_writing_text_is_refused_with_the_way_out(tmp_path: Path) -> None:
    ours = load_ours(tmp_path, make_text_encoder_state())
    with pytest.raises(ValueError, match="cannot write text: use Load CLIP"):
        ours.generate(ours.tokenize("owl"), max_length=2)


def test_qwen3_vl_and_language_head_files_load(tmp_path: Path) -> None:
    state = make_text_encoder_state()
    nested = {key.replace("model.", "model.language_model.", 1): tensor for key, tensor in state.items()}
    nested["lm_head.weight"] = torch.zeros(8, 64)
    nested["model.visual.patch_embed.proj.bias"] = torch.zeros(8)
    assert torch.equal(encode(load_ours(tmp_path, nested), "owl"), encode(tiny_clip(), "owl"))


def test_prompt_node_equals_core_on_either_clip(tmp_path: Path) -> None:
    ours, core = load_ours(tmp_path, make_text_encoder_state()), tiny_clip()
    for clip in (ours, core):
        positive, negative, info = KleinodPrompt.execute(clip, PROMPTS[1], "").args
        assert torch.equal(positive[0][0], encode(core, PROMPTS[1]))
        assert torch.equal(negative[0][0], encode(core, ""))
        assert info == "positive: 19 of 512 tokens\nnegative: 12 of 512 tokens"


def test_prompt_node_cuts_at_512_tokens(tmp_path: Path) -> None:
    core = tiny_clip()
    words = " ".join(f"word{number}" for number in range(300))
    positive, _, info = KleinodPrompt.execute(core, words, "").args
    assert positive[0][0].shape == (1, 512, 192)
    assert encode(core, words).shape[1] > 512
    # The causal encoder's first 512 rows do not depend on what follows them.
    assert torch.allclose(positive[0][0], encode(core, words)[:, :512], atol=1e-4)
    first = info.splitlines()[0]
    assert "of 512 tokens" in first and "word299" in first and "word0 " not in first
    assert positive[0][1]["attention_mask"].shape == (1, 512)


def test_prompt_node_refuses_another_models_clip() -> None:
    from comfy.text_encoders import ovis

    state = make_text_encoder_state(layers=28)

    class Target:
        clip = ovis.te(**comfy.sd.llama_detect([state]))
        tokenizer = ovis.OvisTokenizer
        params: dict[str, Any] = {}

    clip = comfy.sd.CLIP(
        Target, state_dict=[state], model_options={"qwen3_2b_model_config": encoder_config(state)}
    )
    with pytest.raises(
        ValueError, match=r"clip is not a text encoder of FLUX.2 \[klein\] \(it makes qwen3_2b"
    ):
        KleinodPrompt.execute(clip, "owl", "")
    with pytest.raises(ValueError, match="clip is empty"):
        KleinodPrompt.execute(None, "owl", "")
