"""Klein Prompt says which words klein-nano has no picture of, and stays silent about those it has."""

from __future__ import annotations

import pytest
from kleinod.nodes.model import text_engine
from kleinod.nodes.model.nano import load_nano
from kleinod.nodes.model.nano_words import COLOURS, THINGS, describe_world

from tools.nano import world


@pytest.fixture(scope="module")
def clip() -> object:
    return load_nano()[1]


def warn(clip: object, text: str) -> str:
    return "\n".join(text_engine.warn_of_unknown_words(clip, text, "positive"))


def test_the_words_are_those_of_its_world() -> None:
    assert world.NAMES == THINGS and world.COLOURS == COLOURS
    assert all(name in describe_world() for name in (*world.NAMES, *world.COLOURS))


def test_unknown_words_are_named(clip: object) -> None:
    said = warn(clip, "portrait photo of a woman")
    for word in ("portrait", "woman"):
        assert f'"{word}"' in said
    assert said.startswith("positive: ") and "a fox on a blue background" in said and "Klein Loader" in said
    assert '"a"' not in said


@pytest.mark.parametrize("name", THINGS)
def test_what_it_draws_is_known(clip: object, name: str) -> None:
    for text in (
        f"a {name} on a {COLOURS[len(name) % 8]} background",
        f"{name.capitalize()} on a red background",
    ):
        assert warn(clip, text) == ""
    assert warn(clip, "image 1 next to image 2 on a pink background, ink drawing") == ""
    assert warn(clip, "") == ""


def test_other_text_encoders_are_left_alone() -> None:
    assert text_engine.warn_of_unknown_words(object(), "portrait photo", "positive") == []
