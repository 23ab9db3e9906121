"""What the browser scripts repeat of the pack's own rules: both are run, on the same input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from kleinod_pure.acceleration.settings import UNSET, make_acceleration
from kleinod_pure.base.values import ACCELERATION_LEVELS, THRESHOLD_MEANINGS, Acceleration, FaceRefinement
from kleinod_pure.faces.presets import FIELDS, PRESETS
from kleinod_pure.loras.rows import format_row, parse_rows
from kleinod_pure.remote.services.runware import OUTPUT_FORMATS, SAFETY_MODES, SCHEDULERS, RunwareRequest

Call = Callable[..., Any]
ROW_FIELDS = ("file", "weight", "stage", "enabled", "air", "sha256")
UUID = "4d3a4156-5e5e-45db-b73c-a3200a7446ed"


# Words that mean something in a row, between words that mean nothing.
_WORDS = st.one_of(
    st.sampled_from(
        'style.safetensors \'it"s.safetensors\' "quoted 0.5 high" 0.8 -.5 +1. 4.01 1e2 high LOW both off ON '
        "air=civitai:123@456 air=none air= sha256= # <lora:film:0.7> <lora:sub\\two> <lora:a:b> <lora::1> "
        "back\\slash.SFT people/anna v2.safetensors < > : ' \" 0 -0".split(" ")
    ),
    st.just("sha256=" + "aB" * 32),
    st.text(st.characters(codec="utf-8", exclude_categories=["Nd", "Cc", "Cf", "Zl", "Zp"]), max_size=8),
    st.text("0123456789.,+-e", max_size=4),
)
_TEXTS = st.lists(st.lists(_WORDS, max_size=5).map(" ".join), max_size=4).map("\n".join)


@settings(max_examples=150, deadline=None)
@example("style.safetensors 0.8")
@example("people/anna v2.safetensors 1.2 high air=civitai:123@456")
@example("sketch -0.5 off")
@example("a name with 2 words low 0.3")
@example('"quoted 0.5 high" 2')
@example("'it\"s.safetensors' .5 on")
@example("portrait, <lora:one:1> and <lora:sub/two>")
@example("<lora:bad:heavy>")
@example("too heavy.safetensors 5")
@example("twice.safetensors 1 2")
@example("unknown.safetensors word")
@example("air=runware:1@2 0.5")
@example("back\\slash.SFT HIGH OFF")
@example("hash.safetensors sha256=12")
@example("1.5")
@example("# only a remark")
@given(_TEXTS)
def test_both_readers_of_lora_rows_agree(call: Call, text: str) -> None:
    """The same rows, the same refusals, and each reads what the other writes."""
    for line in text.split("\n"):
        parsed = call("lora_rows.js", "parseRows", line)
        try:
            expected = parse_rows(line).rows
        except ValueError:
            assert [entry["kind"] for entry in parsed] == ["broken"]
            assert call("lora_rows.js", "formatRows", parsed) == line.strip()
            continue
        found = [entry for entry in parsed if entry["kind"] == "row"]
        if any({"'", '"'} <= set(row["file"]) for row in found):
            continue  # no quotes can hold such a name
        assert [[row[name] for name in ROW_FIELDS] for row in found] == [
            [getattr(row, name) for name in ROW_FIELDS] for row in expected
        ]
        assert parse_rows(call("lora_rows.js", "formatRows", parsed)).rows == expected
        assert call("lora_rows.js", "parseRows", "\n".join(map(format_row, parse_rows(line).rows))) == found


def test_both_know_the_same_presets_of_faces(call: Call) -> None:
    for name, preset in PRESETS.items():
        assert call("face_presets.js", "numbersOf", name) == {f: getattr(preset, f) for f in FIELDS}
    assert call("face_presets.js", "numbersOf", "custom") == {}


def _hundredths(least: float, most: float) -> st.SearchStrategy[float]:
    return st.integers(round(least * 100), round(most * 100)).map(lambda number: number / 100)


_PROMPTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf"]), max_size=20)
_RUNWARE = st.fixed_dictionaries(
    {
        "positive_prompt": _PROMPTS.filter(lambda text: len(text.strip()) >= 2),
        "negative_prompt": st.just("") | _PROMPTS.filter(lambda text: len(text.strip()) >= 2),
        "width": st.integers(8, 128).map(lambda number: 16 * number),
        "height": st.integers(8, 128).map(lambda number: 16 * number),
        "steps": st.integers(1, 50),
        "cfg_scale": _hundredths(1, 20),
        "seed": st.integers(0, 2**32 - 1),
        "number_results": st.integers(1, 20),
        "scheduler": st.sampled_from(SCHEDULERS),
        "acceleration_level": st.sampled_from(ACCELERATION_LEVELS),
        "true_cfg_scale": st.just(0) | _hundredths(1, 20),
        "output_format": st.sampled_from(OUTPUT_FORMATS),
        "output_quality": st.integers(20, 99),
        "check_content": st.booleans(),
        "safety_mode": st.sampled_from(SAFETY_MODES),
        "ttl": st.just(0) | st.integers(60, 10_000),
        "include_cost": st.booleans(),
        "delivery_method": st.sampled_from(("sync", "async")),
        "model": st.sampled_from(("runware:400@5", "a:b@1")),
    }
)
UNSET_FIELDS = [name for name, value in vars(Acceleration()).items() if value is None and "cache_" in name]
_WINDOWS = st.sampled_from(
    [{}, {"cache_start_step": 0}, {"cache_end_step": 1}, {"cache_start_step_percentage": 10},
     {"cache_start_step_percentage": 0, "cache_end_step_percentage": 100}]
)  # fmt: skip
_METHODS = st.sampled_from([{}, {"fb_cache": True}, {"tea_cache": True}, {"db_cache": True}])
_ACCELERATION = st.builds(
    lambda fields, window, method: {name: UNSET for name in UNSET_FIELDS} | fields | window | method,
    st.fixed_dictionaries(
        {
            "acceleration": st.sampled_from(ACCELERATION_LEVELS),
            "cache_max_consecutive_steps": st.integers(1, 5),
            "fb_cache_threshold": _hundredths(0, 1),
            "tea_cache_distance": _hundredths(0, 1),
            "db_cache_threshold": _hundredths(0, 1),
            "db_cache_skip_interval": st.integers(1, 20),
            "threshold_meaning": st.sampled_from(THRESHOLD_MEANINGS),
        }
    ),
    _WINDOWS,
    _METHODS,
)
_FACE = st.fixed_dictionaries(
    {
        "confidence": _hundredths(0, 1),
        "mask_padding": st.integers(0, 20),
        "mask_blur": st.integers(0, 100),
        "strength": _hundredths(0, 1),
        "steps": st.integers(1, 100),
        "guidance": _hundredths(0, 50),
        "positive_prompt": st.just("") | st.just("  ") | _PROMPTS,
        "negative_prompt": st.just("") | _PROMPTS,
    }
)
_ROWS = st.lists(
    st.builds(
        lambda file, weight, stage, on, air: f"{file}{weight} {stage} {on} air={air}".strip(),
        st.sampled_from(("", "style.safetensors ", '"my 0.5 high.safetensors" ', "plain name ")),
        _hundredths(-4, 4),
        st.sampled_from(("", "high", "low")),
        st.sampled_from(("", "off")),
        st.sampled_from(("civitai:1@2", "a:b@3")),
    ),
    max_size=3,
).map("\n".join)


def _nodes(
    fields: dict[str, Any], acceleration: dict[str, Any] | None, rows: str, face: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page sees of a graph, and the task that the nodes would send for it."""
    task = RunwareRequest(
        **fields,
        accelerator=acceleration and make_acceleration(**acceleration).to_runware(),
        loras=parse_rows(rows).to_runware(),
        ultralytics=face and FaceRefinement(**face).to_runware(),
    ).to_task()
    page = {"runware": fields, "acceleration": acceleration, "rows": rows, "face": face}
    return page, task | {"taskUUID": UUID}


_GRAPHS = (_RUNWARE, st.none() | _ACCELERATION, _ROWS, st.none() | _FACE)


@settings(max_examples=80, deadline=None)
@given(*_GRAPHS)
def test_what_is_copied_is_what_would_be_sent(
    call: Call,
    fields: dict[str, Any],
    acceleration: dict[str, Any] | None,
    rows: str,
    face: dict[str, Any] | None,
) -> None:
    page, task = _nodes(fields, acceleration, rows, face)
    assert call("runware_request.js", "buildRequest", page, UUID) == task


@settings(max_examples=80, deadline=None)
@given(*_GRAPHS, *_GRAPHS)
def test_what_is_pasted_sends_the_same_again(
    call: Call, fields, acceleration, rows, face, old_fields, old_acceleration, old_rows, old_face
) -> None:
    """Into a graph that says something else: nothing of it is left that would change the picture."""
    _, task = _nodes(fields, acceleration, rows, face)
    plan = call("runware_request.js", "planPaste", task)
    assert plan["warnings"] == []
    page = {
        "runware": old_fields | plan["runware"],
        "acceleration": plan["acceleration"] and (old_acceleration or {}) | plan["acceleration"],
        "rows": plan["rows"],
        "face": plan["face"] and (old_face or {}) | plan["face"],
    }
    again = call("runware_request.js", "buildRequest", page, UUID)
    kept = {"outputFormat", "outputQuality", "safety", "ttl", "includeCost", "deliveryMethod"}
    assert {n: v for n, v in again.items() if n in task or n not in kept} == task
