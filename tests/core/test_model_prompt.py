"""Prompts are cut at 512 tokens from the right, and the report says what was lost."""

from __future__ import annotations

import pytest
from kleinod_pure.model.prompt import (
    PAD_TOKEN,
    check_encoder_width,
    count_tokens,
    find_foreign_syntax,
    truncate,
    warn_of_syntax,
)


def row(count: int, padded_to: int = 512) -> list[tuple]:
    return [(index, 1.0) for index in range(count)] + [(PAD_TOKEN, 1.0)] * max(0, padded_to - count)


@pytest.mark.parametrize("count", [0, 1, 12, 511, 512])
def test_prompts_that_fit_are_untouched(count: int) -> None:
    tokens = {"qwen3_4b": [row(count)]}
    kept, report = truncate(tokens, "positive")
    assert kept == tokens
    assert (report.tokens, report.cut) == (count, 0)
    assert str(report) == f"positive: {count} of 512 tokens"


@pytest.mark.parametrize("name", ["qwen3_4b", "qwen3_8b"])
def test_longer_prompts_lose_their_end(name: str) -> None:
    kept, report = truncate(
        {name: [row(700)]}, "negative", lambda ids: f" words {ids[0]} to {ids[-1]}<|im_end|>\n<|im_start|>"
    )
    assert kept[name] == [row(512)]
    assert (report.tokens, report.cut, report.lost_words) == (700, 188, "words 512 to 699")
    assert str(report) == (
        'negative: 700 of 512 tokens, 188 cut at the end; these words had no effect: "words 512 to 699"'
    )


def test_only_the_template_was_cut() -> None:
    _, report = truncate({"qwen3_4b": [row(515)]}, "positive", lambda ids: "<|im_end|>\n")
    assert str(report).endswith("3 cut at the end; only the template's closing words")


def test_long_losses_are_shown_by_their_ends() -> None:
    _, report = truncate({"qwen3_4b": [row(900)]}, "positive", lambda ids: " ".join(f"word{i}" for i in ids))
    assert "word512" in str(report) and "word899" in str(report) and len(str(report)) < 300


def test_padding_is_not_counted_but_embeddings_are() -> None:
    embedding = object()
    assert count_tokens([(5, 1.0), (embedding, 1.0), (PAD_TOKEN, 1.0)]) == 2
    assert count_tokens([(5, 1.0), (PAD_TOKEN, 1.0), (embedding, 1.0)]) == 3
    kept, report = truncate({"qwen3_4b": [[(embedding, 1.0)] * 600]}, "positive", lambda ids: str(ids))
    assert len(kept["qwen3_4b"][0]) == 512 and report.lost_words == "[]"


@pytest.mark.parametrize("names", [["l", "t5xxl"], ["mistral3_24b"], []])
def test_tokens_of_another_model(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"clip is not a text encoder of FLUX.2 \[klein\].*type flux2"):
        truncate(dict.fromkeys(names, [row(3)]), "positive")


def test_widths() -> None:
    for width in (192, 7680, 12288, 384):
        check_encoder_width(width)
    with pytest.raises(ValueError, match="2560 wide.*Z-Image.*flux2"):
        check_encoder_width(2560)


@pytest.mark.parametrize(
    ("text", "words", "meaning"),
    [
        ("a (red:1.3) fox", "(red:1.3)", "a weight"),
        ("a (red (dark) fox : 0.8)", "(red (dark) fox : 0.8)", "a weight"),
        ("((masterpiece)), a fox", "((masterpiece))", "emphasis"),
        ("[[blurry]] fox", "[[blurry]]", "emphasis"),
        ("a [fox:wolf:0.5]", "[fox:wolf:0.5]", "a switch of prompts"),
        ("a fox <lora:film look:0.7>", "<lora:film look:0.7>", "a LoRA"),
        ("a fox, <LyCO:x>", "<LyCO:x>", "a LoRA"),
        ("a fox, embedding:easynegative, night", "embedding:easynegative", "an embedding"),
        ("a fox BREAK a wolf", "BREAK", "a new chunk"),
        ("a fox --ar 16:9", "--ar 16:9", "an option"),
    ],
)
def test_forms_of_other_programs_are_named(text: str, words: str, meaning: str) -> None:
    assert find_foreign_syntax(text) == [(words, meaning)]
    (line,) = warn_of_syntax(text, "negative")
    assert line.startswith(f"Warning: negative holds {words}, {meaning} in other programs")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a fox (a small one) at 12:30, ratio (width:height)",
        "a sign that says (open: 9-17)",
        "take a break; breaking news; 1 < 2 > 0",
        r"a fox \(red:1.3\)",
        "array[0], f(x) -- a dash, e-mail, the embedding of words",
        "{red|blue} fox",
    ],
)
def test_plain_text_is_left_in_peace(text: str) -> None:
    assert find_foreign_syntax(text) == []


def test_several_forms_are_each_named_once() -> None:
    text = "(a:1.2) (b:1.3) <lora:x:1> BREAK BREAK embedding:y"
    assert [meaning for _, meaning in find_foreign_syntax(text)] == [
        "a weight", "a LoRA", "an embedding", "a new chunk",
    ]  # fmt: skip
    assert find_foreign_syntax("(" * 4000 + "a:1" + "[" * 4000) == []
