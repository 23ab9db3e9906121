"""Facts about a Klein: sizes by shapes, variant by override, metadata or name, and what they recommend."""

from __future__ import annotations

import dataclasses

import pytest
from kleinod_pure.model.facts import (
    KleinFacts,
    count_parameters,
    decide_variant,
    describe,
    facts_from_shapes,
    facts_from_sizes,
    nano_facts,
)

from tests.model.tiny_klein import dit_shapes

REAL = {"4b": (3072, 5, 20, 7680), "9b": (4096, 8, 24, 12288)}
# Counted on the meta device from ComfyUI's own module, in the guide.
PARAMETERS = {"4b": 3_875_544_576, "9b": 9_078_581_248}


@pytest.mark.parametrize("family", ["4b", "9b"])
def test_family_and_parameters_of_the_real_models(family: str) -> None:
    facts = facts_from_shapes(dit_shapes(*REAL[family]), file_name=f"flux-2-klein-base-{family}.safetensors")
    assert facts.family == family
    assert (facts.hidden, facts.depth_double, facts.depth_single, facts.context_width) == REAL[family]
    assert facts.parameters == PARAMETERS[family] == count_parameters(*REAL[family])


def test_other_sizes_are_still_a_klein() -> None:
    facts = facts_from_shapes(dit_shapes(256, 1, 0, 96), file_name="x.safetensors")
    assert (facts.family, facts.hidden, facts.depth_double, facts.depth_single) == ("other", 256, 1, 0)


def test_shapes_of_something_else() -> None:
    with pytest.raises(ValueError, match="not a Klein"):
        facts_from_shapes({"conv.weight": (3, 3)}, file_name="vae.safetensors")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("flux-2-klein-base-4b.safetensors", "base"),
        ("flux-2-klein-base-4b-fp8.safetensors", "base"),
        ("flux-2-klein-4b.safetensors", "distilled"),
        ("flux-2-klein-4b-fp8.safetensors", "distilled"),
        ("flux-2-klein-9b-kv-fp8.safetensors", "distilled"),
        ("sub/flux2_klein_9b.safetensors", "distilled"),
        ("base_models\\flux-2-klein-4b.safetensors", "distilled"),
        ("FLUX.2-Klein-4B-Base-Q4_K_M.gguf", "base"),
        ("klein4bbase.safetensors", "base"),
        ("my-klein-distilled-merge.safetensors", "distilled"),
        ("klein-portrait-4steps.safetensors", "distilled"),
        ("database-klein.safetensors", "base"),
        ("something.safetensors", "base"),
    ],
)
def test_variant_by_name(name: str, variant: str) -> None:
    assert decide_variant("auto", name)[0] == variant


def test_a_name_that_tells_nothing_is_said_to_be_assumed() -> None:
    assert "assumed" in decide_variant("auto", "something.safetensors")[1]
    assert "assumed" not in decide_variant("auto", "flux-2-klein-base-4b.safetensors")[1]


def test_metadata_wins_over_the_name_and_the_user_over_both() -> None:
    metadata = {"modelspec.title": "FLUX.2 klein 4B distilled, base model: klein"}
    assert decide_variant("auto", "klein-base-4b.safetensors", metadata)[0] == "distilled"
    assert "metadata" in decide_variant("auto", "klein-base-4b.safetensors", metadata)[1]
    variant, reason = decide_variant("base", "klein-4b.safetensors", metadata)
    assert (variant, reason) == ("base", "chosen in the variant input")
    with pytest.raises(ValueError, match="variant is one of auto, base, distilled"):
        decide_variant("turbo")


def test_metadata_that_say_base_mean_it_whatever_else_they_say() -> None:
    metadata = {"modelspec.title": "FLUX.2 klein base 4B, not distilled"}
    assert decide_variant("auto", "klein-4b.safetensors", metadata)[0] == "base"


def test_recommendations_follow_the_variant() -> None:
    base = facts_from_sizes(*REAL["4b"], choice="base")
    distilled = facts_from_sizes(*REAL["4b"], choice="distilled")
    assert (base.recommended_steps, base.recommended_guidance) == (50, 4.0)
    assert (distilled.recommended_steps, distilled.recommended_guidance) == (4, 1.0)
    assert distilled.distilled and not base.distilled
    assert (base.hidden, base.parameters) == (distilled.hidden, distilled.parameters)


def test_key_value_variant_is_known_for_9b_only() -> None:
    assert facts_from_sizes(*REAL["9b"], file_name="flux-2-klein-9b-kv-fp8.safetensors").key_value_cached
    assert not facts_from_sizes(*REAL["9b"], file_name="flux-2-klein-9b.safetensors").key_value_cached
    assert not facts_from_sizes(*REAL["4b"], file_name="flux-2-klein-4b-kv.safetensors").key_value_cached


def test_nano() -> None:
    facts = nano_facts(256, 2, 6, 192)
    assert (facts.family, facts.recommended_steps, facts.recommended_guidance) == ("nano", 28, 4.0)
    assert facts.native_size == (128, 128)
    assert "klein-nano" in "\n".join(describe(facts))


def test_description_holds_what_a_user_needs() -> None:
    text = "\n".join(
        describe(facts_from_sizes(*REAL["4b"], file_name="flux-2-klein-base-4b.safetensors", dtype="bf16"))
    )
    for words in ("FLUX.2 [klein] 4B base", "3,875,544,576", "bf16", "3072", "7680", "50 steps at guidance 4",
                  "Apache-2.0", 'the file name says "base"'):  # fmt: skip
        assert words in text
    assert "non-commercial" in "\n".join(describe(facts_from_sizes(*REAL["9b"])))
    assert "negative prompt has no effect" in "\n".join(
        describe(facts_from_sizes(*REAL["4b"], choice="distilled"))
    )


def test_facts_are_frozen_and_checked() -> None:
    facts = facts_from_sizes(*REAL["4b"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.variant = "base"
    with pytest.raises(ValueError, match="variant is base or distilled"):
        dataclasses.replace(facts, variant="auto")
    with pytest.raises(ValueError, match="family is one of"):
        KleinFacts("base", "test", "13b", 1, 1, 1, 1)
