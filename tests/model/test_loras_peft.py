"""Scales as PEFT itself applies them: alpha_pattern and rank_pattern, over random patterns."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from kleinod.nodes.base.safetensors import read_header
from kleinod.nodes.loras.parts import compute_delta
from kleinod.nodes.loras.plan import plan_file
from kleinod.nodes.loras.targets import Architecture
from kleinod.nodes.loras.tensors import OpenFiles, build_parts, load_plan
from safetensors.torch import load_file, save_file

from tests.borrowed import run_script
from tests.model.tiny_klein import dit_shapes

HIDDEN = 16
ARCHITECTURE = Architecture(
    {
        key.removesuffix(".weight").removesuffix(".scale"): shape
        for key, shape in dit_shapes(HIDDEN, 2, 12, 8).items()
    }
)
DOUBLE = {"attn.to_q": (1, 1), "attn.to_out.0": (1, 1), "ff.linear_in": (6, 1), "attn.add_k_proj": (1, 1)}
SINGLE = {"attn.to_qkv_mlp_proj": (9, 1), "attn.to_out": (1, 4)}
MODULES = {
    f"{kind}.{index}.{name}": [rows * HIDDEN, columns * HIDDEN]
    for kind, count, names in (("transformer_blocks", 2, DOUBLE), ("single_transformer_blocks", 12, SINGLE))
    for index in range(count)
    for name, (rows, columns) in names.items()
}
CASES = 40


def draw_pattern(dice: random.Random) -> str:
    """The forms that trainers and people write: names, ends of names, expressions, anchors, alternatives."""
    name = dice.choice(list(MODULES))
    kind, index, *rest = name.split(".")
    end = ".".join(rest)
    return dice.choice(
        [
            name,
            end,
            rest[-1],
            name.replace(".", r"\."),
            rf"{kind}\.{index}\..*",
            rf".*{kind}\.\d+\.{end}",
            rf"^{kind}\.[0-{dice.randint(0, 9)}]\..*",
            rf".*\.({end}|ff\.linear_in)$",
            r".*single_transformer_blocks\.0\..*(to_qkv_mlp_proj|to_out)$",
            rf"(single_)?transformer_blocks\.1\.{rest[0]}.*",
            rf"blocks.{index}.{end}",
            rf"(?:{end}|{dice.choice(list(SINGLE))})",
        ]
    )


def draw_cases() -> list[dict[str, Any]]:
    dice = random.Random(11)
    cases: list[dict[str, Any]] = [
        {"kind": "LORA", "config": {"r": 4, "lora_alpha": 4, "alpha_pattern": {
            r".*single_transformer_blocks\.0\..*(to_qkv_mlp_proj|to_out)$": 16}}},
    ]  # fmt: skip
    while len(cases) < CASES:
        lokr = dice.random() < 0.25
        config: dict[str, Any] = {"r": dice.choice([1, 2, 4, 8]), "rank_pattern": {}, "alpha_pattern": {}}
        for field, values in (("rank_pattern", (1, 2, 3, 6)), ("alpha_pattern", (0.5, 1, 3, 16))):
            for _ in range(dice.randint(0, 4)):
                config[field][draw_pattern(dice)] = dice.choice(values)
        config["alpha" if lokr else "lora_alpha"] = dice.choice([1, 2, 8, 12])
        if not lokr:
            config["use_rslora"] = dice.random() < 0.3
        cases.append({"kind": "LOKR" if lokr else "LORA", "config": config})
    return [{**case, "modules": MODULES} for case in cases]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder, cases = tmp_path_factory.mktemp("peft"), draw_cases()
    (folder / "cases.json").write_text(json.dumps(cases))
    assert run_script("peft", Path(__file__).with_name("peft_client.py"), str(folder))["cases"] == CASES
    return folder, cases


def metadata_of(case: dict[str, Any], diffusers: bool) -> dict[str, str]:
    """As PEFT's configuration, or as diffusers packs it into a file."""
    config = {**case["config"], "peft_type": case["kind"]}
    packed = {f"transformer.{name}": value for name, value in config.items()} if diffusers else config
    return {"lora_adapter_metadata": json.dumps(packed)}


@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.", "diffusion_model.", ""])
def test_every_module_gets_pefts_change(prefix: str, made: tuple[Path, list], tmp_path: Path) -> None:
    folder, cases = made
    scales = set()
    for number, case in enumerate(cases):
        state = load_file(folder / f"{number}.safetensors")
        state = {prefix + key.removeprefix("base_model.model."): value for key, value in state.items()}
        path = tmp_path / "it.safetensors"
        save_file(state, path, metadata_of(case, prefix == "transformer."))
        wanted = load_file(folder / f"{number}.delta.safetensors")
        plan = plan_file(read_header(path, "lora", path.name), ARCHITECTURE)
        file = OpenFiles().open(str(path), path.name)
        load_plan(file, plan)
        assert len(plan.parts) == len(MODULES) and not plan.unused
        for planned, part, _ in build_parts(file, plan, 1.0):
            delta = compute_delta(part, torch.empty(planned.shape))
            reference = wanted[planned.source.removeprefix(prefix)]
            assert torch.allclose(delta, reference, rtol=1e-4, atol=1e-5), (case["config"], planned.source)
            scales.add(round(part.scale, 4))
    assert len(scales) > 20, "the patterns hardly act"


def test_the_issues_own_case(made: tuple[Path, list], tmp_path: Path) -> None:
    folder, cases = made
    path = tmp_path / "it.safetensors"
    save_file(load_file(folder / "0.safetensors"), path, metadata_of(cases[0], False))
    plan = plan_file(read_header(path, "lora", path.name), ARCHITECTURE)
    strong = {part.source for part in plan.parts if part.scale(None) == 4.0}
    assert strong == {
        f"base_model.model.single_transformer_blocks.0.attn.{name}" for name in ("to_qkv_mlp_proj", "to_out")
    }
    assert all(part.scale(None) == 1.0 for part in plan.parts if part.source not in strong)


def test_a_pattern_that_never_ends_is_refused(made: tuple[Path, list], tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    config = {"lora_alpha": 1, "alpha_pattern": {"(?:[a-z_.0-9]|[a-z_.0-9][a-z_.0-9])+[A-Z]": 2}}
    save_file(load_file(made[0] / "0.safetensors"), path, {"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(ValueError, match="takes too long to match"):
        plan_file(read_header(path, "lora", path.name), ARCHITECTURE)
