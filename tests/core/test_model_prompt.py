"""Prompts are cut at 512 tokens from the right, and the report says what was lost."""

from __future__ import annotations

import pytest
from kleinod_pure.model.prompt import PAD_TOKEN, check_encoder_width, count_tokens, truncate


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
