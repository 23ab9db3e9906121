"""Which weight a name means, and what a file's header alone tells. Real Klein sizes, no real weights."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from kleinod_pure.base.safetensors import Entry, Header
from kleinod_pure.base.values import StageBoundary
from kleinod_pure.loras.keys import split_key
from kleinod_pure.loras.plan import MAX_LETTERS, FilePlan, plan_file
from kleinod_pure.loras.stages import edge_of, is_active
from kleinod_pure.loras.targets import Architecture, Target, UnknownModule, find_target
from kleinod_pure.loras.tensors import OpenFiles

from tests.model.headers import header_of, write_header, write_shapes
from tests.model.tiny_klein import dit_shapes

HIDDEN = 3072


def architecture(*sizes: int) -> Architecture:
    shapes = dit_shapes(*sizes)
    return Architecture(
        {key.removesuffix(".weight").removesuffix(".scale"): shape for key, shape in shapes.items()}
    )


KLEIN_4B = architecture(3072, 5, 20, 7680)
KLEIN_9B = architecture(4096, 8, 24, 12288)


def header(shapes: dict[str, tuple[int, ...]], dtype: str = "BF16", **metadata: str) -> Header:
    return Header(
        "lora", "it.safetensors", {key: Entry(dtype, shape) for key, shape in shapes.items()}, metadata
    )


def lora_of(model: Architecture, only: str = "", rank: int = 16) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for name, (rows, *columns) in model.shapes.items():
        if columns and only in name:
            shapes[f"diffusion_model.{name}.lora_A.weight"] = (rank, columns[0])
            shapes[f"diffusion_model.{name}.lora_B.weight"] = (rows, rank)
    return shapes


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("diffusion_model.double_blocks.3.txt_mlp.2", Target("double_blocks.3.txt_mlp.2")),
        ("lora_unet_single_blocks_19_linear2", Target("single_blocks.19.linear2")),
        ("transformer_blocks.4.attn.add_k_proj", Target("double_blocks.4.txt_attn.qkv", 3072, 3072)),
        ("sformer_blocks_0_attn_to_v", Target("double_blocks.0.img_attn.qkv", 6144, 3072)),
        ("lora_transformer_single_transformer_blocks_7_attn_to_out", Target("single_blocks.7.linear2")),
        ("single_transformer_blocks.7.proj_mlp", Target("single_blocks.7.linear1", 9216, 18432)),
        ("single_transformer_blocks.7.attn.to_q", Target("single_blocks.7.linear1", 0, 3072)),
        ("transformer_blocks.0.ff.net.0.proj", Target("double_blocks.0.img_mlp.0")),
        ("transformer_blocks.0.ff_context.net.2", Target("double_blocks.0.txt_mlp.2")),
        ("norm_out.linear", Target("final_layer.adaLN_modulation.1", swapped=True)),
        ("final_layer.adaLN_modulation.1", Target("final_layer.adaLN_modulation.1")),
        ("x.proj_out", Target("final_layer.linear")),
        ("lora_unet__double_blocks__0__img_attn-qkv", Target("double_blocks.0.img_attn.qkv")),
        ("time_text_embed.timestep_embedder.linear_2", Target("time_in.out_layer")),
        ("base_model.model.double_stream_modulation_txt.linear", Target("double_stream_modulation_txt.lin")),
    ],
)  # fmt: skip
def test_names(name: str, target: Target) -> None:
    assert find_target(name, KLEIN_4B) == target


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("double_blocks.5.img_attn.qkv", r"block 5 of double_blocks \(this model has 5 of them\)"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text encoder"),
        ("text_encoder.transformer_blocks.0.attn.to_q", "text encoder"),
        ("controlnet.transformer_blocks.0.attn.to_q", "another network"),
        ("transformer_blocks.0.norm1.linear", "FLUX.1"),
        ("transformer_blocks.0.cross_attn.to_q", "no such part"),
        ("time_text_embed.text_embedder.linear_1", "no such part"),
        ("guidance_in.in_layer", "this model has no guidance_in.in_layer"),
        ("blocks.0.proj_out", "no such part"),
        ("single_transformer_blocks_99_proj_out", "block 99"),
        ("", "no such part"),
    ],
)
def test_names_of_nothing_here(name: str, reason: str) -> None:
    with pytest.raises(UnknownModule, match=reason):
        find_target(name, KLEIN_4B)


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("a.b.lora_A.weight", ("a.b", "down")),
        ("a.b.lora_B.default_0.weight", ("a.b", "up")),
        ("lora_unet_a_b.lora_up.weight", ("lora_unet_a_b", "up")),
        ("a.to_q_lora.down.weight", ("a.to_q", "down")),
        ("a.lora_linear_layer.up.weight", ("a", "up")),
        ("a.alpha", ("a", "alpha")),
        ("a.lora_magnitude_vector.default.weight", ("a", "magnitude")),
        ("a.lokr_w2_b", ("a", "lokr_w2_b")),
        ("a.hada_w1_a.weight", ("a", "hada_w1_a")),
        ("a.lora_B.bias", ("a", "bias")),
        ("a.norm.query_norm.scale", ("a.norm.query_norm", "whole")),
        ("a.oft_blocks", ("a", "oft_blocks")),
        ("a.oft_R.weight", ("a", "unsupported")),
        ("a.a1.weight", ("a", "a1")),
        ("a.set_weight", ("a", "set_weight")),
        ("lora_unet_a.lora_down.2.weight", ("lora_unet_a", "split")),
        ("lora_A.weight", ("lora_A", "whole")),
        ("logit_scale", ("", "")),
    ],
)
def test_endings(key: str, meaning: tuple[str, str]) -> None:
    assert split_key(key) == meaning


def test_a_whole_file_at_real_size() -> None:
    plan = plan_file(header(lora_of(KLEIN_4B)), KLEIN_4B)
    assert len(plan.parts) == plan.total == 5 * 8 + 20 * 2 + 9
    assert plan.ranks == [16] and plan.unused == {}


def refusal(shapes: dict[str, tuple[int, ...]], model: Architecture = KLEIN_4B) -> str:
    with pytest.raises(ValueError, match=r"^lora \"it.safetensors\"") as caught:
        plan_file(header(shapes), model)
    return str(caught.value)


def test_a_9b_file_on_a_4b_says_so() -> None:
    text = refusal(lora_of(KLEIN_9B))
    assert (
        "was trained for FLUX.2 [klein] 9B (width 4096), but the model is FLUX.2 [klein] 4B (width 3072"
        in text
    )
    assert "img_in is 4096x128 there and 3072x128 here" in text
    assert "FLUX.2 [klein] 4B (width 3072), but the model is FLUX.2 [klein] 9B" in refusal(
        lora_of(KLEIN_4B), KLEIN_9B
    )


def test_a_9b_file_of_other_kinds_says_so() -> None:
    lokr = {f"lycoris_double_blocks_{i}_img_attn_proj.{name}": shape for i in range(8)
            for name, shape in (("lokr_w1", (16, 16)), ("lokr_w2", (256, 256)))}  # fmt: skip
    assert "9B (width 4096)" in refusal(lokr)
    loha = {f"double_blocks.{i}.img_attn.proj.hada_{name}": shape for i in range(5) for name, shape in
            (("w1_a", (4096, 4)), ("w1_b", (4, 4096)), ("w2_a", (4096, 4)), ("w2_b", (4, 4096)))}  # fmt: skip
    assert "9B (width 4096)" in refusal(loha)


def test_flux1_files_are_told_although_some_layers_fit() -> None:
    """FLUX.1 has klein 4B's width: attention alone of its first blocks would slip in."""
    shapes = {}
    for i in range(19):
        for name in ("to_q", "to_k", "to_v"):
            shapes[f"transformer.transformer_blocks.{i}.attn.{name}.lora_A.weight"] = (16, HIDDEN)
            shapes[f"transformer.transformer_blocks.{i}.attn.{name}.lora_B.weight"] = (HIDDEN, 16)
    assert "was trained for FLUX.1" in refusal(shapes)
    few = {key: shape for key, shape in shapes.items() if int(key.split(".")[2]) < 2}
    few |= {"transformer.transformer_blocks.0.norm1.linear.lora_A.weight": (16, HIDDEN)}
    few |= {"transformer.transformer_blocks.0.norm1.linear.lora_B.weight": (6 * HIDDEN, 16)}
    assert "was trained for FLUX.1" in refusal(few)


def test_files_that_would_silently_do_nothing() -> None:
    text = refusal({"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (8, 4),
                    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 8)})  # fmt: skip
    assert "holds nothing that acts on FLUX.2 [klein]" in text and "text encoder" in text
    assert "holds nothing" in refusal({"double_blocks.0.img_attn.qkv.weight": (3 * HIDDEN, HIDDEN)})


def unused(extra: dict[str, tuple[int, ...]], dtype: str = "BF16") -> FilePlan:
    shapes = lora_of(KLEIN_4B, "single_blocks") | extra
    return plan_file(header(shapes, dtype), KLEIN_4B)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"double_blocks.0.img_attn.proj.lora_A.weight": (4, HIDDEN)}, "half of a pair"),
        ({"double_blocks.0.img_attn.proj.alpha": ()}, "a scale without"),
        ({"double_blocks.0.img_attn.proj.oft_R.weight": (8, 28)}, "OFT"),
        ({"double_blocks.0.img_attn.proj.oft_blocks": (8, 8, 8)}, "of another size"),
        ({"double_blocks.0.img_attn.proj.oft_blocks": (2, 1024, 3, 3)}, "butterfly does not fit"),
        ({"double_blocks.0.img_attn.proj.lora_down.0.weight": (4, HIDDEN)}, "kohya's working form"),
        ({"double_blocks.0.img_attn.proj.diff_b": (HIDDEN,)}, "no biases"),
        ({"something": (2,)}, "belong to nothing"),
        ({"ema.single_blocks.0.linear2.lora_A.weight": (4, 4 * HIDDEN),
          "ema.single_blocks.0.linear2.lora_B.weight": (HIDDEN, 4)}, "a second change of the same weight"),
        ({"x" * (MAX_LETTERS + 1) + ".alpha": ()}, "belong to nothing"),
        ({"double_blocks.0.img_attn.proj.lora_A.weight": (9000, HIDDEN),
          "double_blocks.0.img_attn.proj.lora_B.weight": (HIDDEN, 9000)}, "its rank is 9,000"),
        ({"double_blocks.0.img_attn.proj.lora_A.weight": (4, 2048),
          "double_blocks.0.img_attn.proj.lora_B.weight": (HIDDEN, 4)}, "of another size"),
        ({"double_blocks.0.img_attn.proj.lora_A.weight": (4, HIDDEN),
          "double_blocks.0.img_attn.proj.lora_B.weight": (HIDDEN, 4),
          "double_blocks.0.img_attn.proj.alpha": (2,)}, "alpha is not one number"),
    ],
)  # fmt: skip
def test_what_is_not_used_is_named_with_the_reason(extra: dict, reason: str) -> None:
    plan = unused(extra)
    assert len(plan.parts) == 40
    assert any(reason in text for text in plan.unused), plan.unused


def test_odd_number_types() -> None:
    with pytest.raises(ValueError, match="stored as U8"):
        plan_file(header(lora_of(KLEIN_4B, "single_blocks"), "U8"), KLEIN_4B)


# --- hostile files, through the door every row takes


def test_hostile_headers_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    name = "double_blocks.0.img_attn.proj.lora_A.weight"
    sound = header_of({name: (4, 8), "b": (4, 8)})
    tables = {
        "fit its place": sound | {name: {"dtype": "BF16", "shape": [2**40, 2**20], "data_offsets": [0, 64]}},
        "no valid shape": sound | {name: {"dtype": "BF16", "shape": [-4, 8], "data_offsets": [0, 64]}},
        "no valid place": sound | {name: {"dtype": "BF16", "shape": [4, 8], "data_offsets": [-64, 0]}},
        "overlap": sound | {name: {"dtype": "BF16", "shape": [4, 8], "data_offsets": [64, 128]}},
        "cut off": {name: {"dtype": "BF16", "shape": [2**30, 2], "data_offsets": [0, 2**32]}},
        "not described": sound | {name: [1]},
    }
    for words, table in tables.items():
        write_header(path, table, 128)
        refuse(path, words)
    for content, words in (
        (struct.pack("<Q", 12) + b'{"\xff\xfe\xff": 1}' + bytes(64), "header is not readable"),
        (struct.pack("<Q", 2**62) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 60_000) + b"[" * 60_000, "header is not readable"),
        (struct.pack("<Q", 60_005) + b'{"a":' + b"9" * 59_999 + b"}", "header is not readable"),
    ):
        path.write_bytes(content)
        refuse(path, words)


def refuse(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=r"^lora ") as caught:
        OpenFiles().open(str(path), path.name)
    text = str(caught.value)
    assert words in text
    assert "\n" not in text and len(text) < 400


def test_a_hole_as_large_as_a_disk_is_never_read(tmp_path: Path) -> None:
    """Terabytes of tensors that no Klein has: the header, which is all that a plan is given, says enough."""
    shapes = {"double_blocks.0.img_attn.proj.lora_A.weight": (2**28, HIDDEN)}
    shapes |= {"double_blocks.0.img_attn.proj.lora_B.weight": (HIDDEN, 2**28)}
    path = write_shapes(tmp_path / "it.safetensors", shapes)
    with pytest.raises(ValueError, match="its rank is 268,435,456"):
        plan_file(OpenFiles().open(str(path), path.name).header, KLEIN_4B)


def test_names_made_to_waste_time() -> None:
    """An expression that tries all ways to part them would not end: a repeat more means twice as many."""
    names = ["_lora_A." * 60, ".alpha" * 80, "transformer_blocks_" * 25, "a." * 240 + "oft_" + "_" * 15]
    shapes = {f"{name}{i}.lora_A.weight": (4, 4) for name in names for i in range(500)}
    sound = lora_of(KLEIN_4B)
    plan = plan_file(header(sound | shapes), KLEIN_4B)
    assert len(plan.parts) == len(sound) / 2
    assert sum(map(len, plan.unused.values())) == len(shapes)


# --- stages


@pytest.mark.parametrize(
    ("boundary", "sigmas", "high_steps"),
    [
        (StageBoundary(), (1.0, 0.9, 0.8, 0.7, 0.0), 2),
        (StageBoundary(), (1.0, 0.967, 0.0), 1),
        (StageBoundary(), (1.0, 0.0), 0),
        (StageBoundary(at=0.0), (1.0, 0.5, 0.0), 0),
        (StageBoundary(at=1.0), (1.0, 0.5, 0.0), 2),
        (StageBoundary(at=0.26), (1.0, 0.9, 0.8, 0.7, 0.0), 1),
        (StageBoundary("sigma", 0.9), (1.0, 0.967, 0.908, 0.767, 0.0), 3),
        (StageBoundary("sigma", 0.9), (1.0, 0.9, 0.899, 0.0), 2),
    ],
)
def test_boundaries(boundary: StageBoundary, sigmas: tuple[float, ...], high_steps: int) -> None:
    high = [is_active("high", boundary, sigma, sigmas) for sigma in sigmas[:-1]]
    assert high == [step < high_steps for step in range(len(high))]
    assert [is_active("low", boundary, sigma, sigmas) for sigma in sigmas[:-1]] == [not on for on in high]
    assert [sigma >= edge_of(boundary, sigmas) for sigma in sigmas[:-1]] == high
