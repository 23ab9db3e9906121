"""The Loras value, its text form, and what of it goes to Runware and other packs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.base.values import LoraRow, Loras, StageBoundary
from kleinod_pure.loras.request import NO_LORA, StackRequest, rows_of_stack, stack_of_rows
from kleinod_pure.loras.rows import MAX_ROWS, format_row, parse_rows
from kleinod_pure.remote.job_request import JobRequest, RunContext
from kleinod_pure.remote.services import find_service

SHA = "0123456789abcdef" * 4


def test_lines_as_a_person_writes_them() -> None:
    text = f"""
        style.safetensors 0.8
        people/anna v2.safetensors high 1.2 air=civitai:1@2
        sketch -.5 OFF
        # style.safetensors 3
        1.5 low air=runware:4@5
        "high" 2
        folder\\name.sft sha256={SHA.upper()}
    """
    assert parse_rows(text).rows == (
        LoraRow("style.safetensors", 0.8),
        LoraRow("people/anna v2.safetensors", 1.2, "high", air="civitai:1@2"),
        LoraRow("sketch", -0.5, enabled=False),
        LoraRow("", 1.5, "low", air="runware:4@5"),
        LoraRow("high", 2.0),
        LoraRow("folder/name.sft", sha256=SHA),
    )


def test_tags_of_a_prompt() -> None:
    rows = parse_rows("a fox <lora:film grain:0.7>, <lora:b> sharp <LORA:c:1:0.5>").rows
    assert rows == (LoraRow("film grain", 0.7), LoraRow("b", 1.0), LoraRow("c", 1.0))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.safetensors 5", "from -4 to 4"),
        ("a.safetensors nan", "'nan' is not understood"),
        ("a.safetensors 1 2", "second time"),
        ("a.safetensors sharp", "'sharp' is not understood"),
        ("a.safetensors sha256=12", "64 digits"),
        ("a.safetensors air=12", "civitai:123@456"),
        ("0.5 high", "no file"),
        ("<lora:a:much>", "no weight"),
    ],
)
def test_errors_name_the_line(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^rows, line 2: ") as caught:
        parse_rows("fine.safetensors\n" + line)
    assert words in str(caught.value)


def test_as_many_rows_as_fit_and_not_one_more() -> None:
    assert len(parse_rows("a.safetensors\n" * MAX_ROWS).rows) == MAX_ROWS
    with pytest.raises(ValueError, match=f"at most {MAX_ROWS}"):
        parse_rows("a.safetensors\n" * (MAX_ROWS + 1))


names = (
    st.text(
        st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")).filter(
            lambda c: c not in '"\\<>' and not c.isspace()
        )
        | st.just(" "),
        min_size=1,
        max_size=30,
    )
    .map(str.strip)
    .filter(lambda name: name and "'" not in name)
)
rows = st.builds(
    LoraRow,
    file=names | names.map(lambda name: name + ".safetensors"),
    weight=st.integers(-400, 400).map(lambda hundredth: hundredth / 100),
    stage=st.sampled_from(("both", "high", "low")),
    enabled=st.booleans(),
    sha256=st.sampled_from(("", SHA)),
    air=st.sampled_from(("", "civitai:1@2")),
)


@given(st.lists(rows, max_size=5))
def test_text_and_rows_say_the_same(listed: list[LoraRow]) -> None:
    loras = Loras(tuple(listed))
    assert parse_rows("\n".join(map(format_row, loras.rows))) == loras


def test_plain_widgets_are_one_more_row() -> None:
    request = StackRequest.read(
        "a.safetensors", "b.safetensors", 0.5, "low", "skip the row", "sigma", 0.9, "beside the weights"
    )
    boundary = StageBoundary("sigma", 0.9)
    assert request.rows.rows == (
        LoraRow("a.safetensors", boundary=boundary),
        LoraRow("b.safetensors", 0.5, "low", boundary=boundary),
    )
    assert request.skips_missing and request.bypass
    none = StackRequest.read(
        "", NO_LORA, 1.0, "both", "stop with an error", "share of steps", 0.5, "into the weights"
    )
    assert none == StackRequest()


def ask_runware(loras: Loras) -> JobRequest:
    inputs = {"positive_prompt": "a fox", "seed": 1, "loras": loras}
    return find_service("runware").make_request(RunContext(), inputs)


def test_runware_gets_the_rows_that_act() -> None:
    loras = Loras((
        LoraRow("a.safetensors", 0.8, air="civitai:1@2"),
        LoraRow("b.safetensors", enabled=False),
        LoraRow("c.safetensors", 0.0),
        LoraRow("", -1.0, "high", air="runware:3@4"),
    ))  # fmt: skip
    wanted = [
        {"model": "civitai:1@2", "weight": 0.8},
        {"model": "runware:3@4", "weight": -1.0, "transformer": "high"},
    ]
    assert loras.to_runware() == wanted
    request = ask_runware(loras)
    assert request.body["lora"] == wanted
    assert "lora" not in ask_runware(Loras()).body


def test_a_row_without_air_is_named() -> None:
    loras = Loras((LoraRow("a.safetensors", air="civitai:1@2"), LoraRow("mine.safetensors")))
    with pytest.raises(ValueError, match="Row 2 of loras, 'mine.safetensors', has no AIR id"):
        ask_runware(loras)


def test_stacks_of_other_packs() -> None:
    stack = [("a.safetensors", 0.8, 0.7), ["x\\b.safetensors", -1, 0], ("None", 1.0, 1.0)]
    got = rows_of_stack(stack)
    assert got == (LoraRow("a.safetensors", 0.8), LoraRow("x/b.safetensors", -1.0))
    assert rows_of_stack(None) == ()
    off = LoraRow("c.safetensors", enabled=False)
    assert stack_of_rows(Loras((*got, off))) == [("a.safetensors", 0.8, 0.8), ("x/b.safetensors", -1.0, -1.0)]
    with pytest.raises(ValueError, match="lora_stack holds"):
        rows_of_stack(["a.safetensors"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"file": ""}, "no file and no AIR id"),
        ({"file": "a", "weight": float("nan")}, "weight of LoRA 'a'"),
        ({"file": "a", "stage": "middle"}, "stage of LoRA 'a'"),
        ({"file": "a", "sha256": SHA.upper()}, "sha256 of LoRA 'a'"),
    ],
)
def test_rows_are_checked(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoraRow(**fields)
    with pytest.raises(ValueError, match="boundary_at"):
        StageBoundary("sigma", 1.2)
