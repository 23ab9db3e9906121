"""One row for each field: the check, the widgets' way in, the API's spelling in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kleinod_pure.base.errors import ArtistError
from kleinod_pure.base.fields import (
    UNSET,
    Field,
    check_fields,
    describe_fields,
    from_api,
    read_widgets,
    to_api,
)

FIELDS = (
    Field("steps", 28, api="steps", low=1, high=50),
    Field("start", None, kind=int, api="cacheStartStep", low=0),
    Field("size", 1024, low=128, high=2048, multiple=16),
    Field("threshold", 0.25, api="fbCacheThreshold", low=0, high=1),
    Field("unit", "pixels", choices=("pixels", "percent")),
    Field("on", False, api="fbCache"),
)


@dataclass(frozen=True)
class Settings:
    steps: int = 28
    start: int | None = None
    size: int = 1024
    threshold: float = 0.25
    unit: str = "pixels"
    on: bool = False

    def __post_init__(self) -> None:
        check_fields(self, FIELDS)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": 0}, "steps is 0, but must be from 1 to 50."),
        ({"steps": 51}, "steps is 51, but must be from 1 to 50."),
        ({"steps": 2.5}, "steps is 2.5, but must be a whole number."),
        ({"steps": True}, "steps is True, but must be from 1 to 50."),
        ({"steps": None}, "steps is None, but must be from 1 to 50."),
        ({"start": -1}, "cacheStartStep is -1, but must be 0 or more."),
        ({"size": 1000}, "size is 1000, but must be a multiple of 16: use 992 or 1008."),
        ({"threshold": float("nan")}, "fbCacheThreshold is nan, but must be from 0 to 1."),
        ({"threshold": "much"}, "fbCacheThreshold is much, but must be from 0 to 1."),
        ({"unit": "inches"}, "unit is 'inches', but must be one of: pixels, percent."),
    ],
)
def test_a_wrong_value_gets_one_sentence(wrong: dict, sentence: str) -> None:
    with pytest.raises(ArtistError) as error:
        Settings(**wrong)
    assert str(error.value) == sentence


@given(
    st.builds(
        Settings,
        steps=st.integers(1, 50),
        start=st.none() | st.integers(0, 99),
        threshold=st.floats(0, 1),
        on=st.booleans(),
    )
)
def test_what_the_api_spells_comes_back(settings: Settings) -> None:
    spelled = to_api(settings, FIELDS)
    assert ("cacheStartStep" in spelled) == (settings.start is not None)
    assert Settings(**from_api(spelled, FIELDS)) == settings


def test_widgets_cannot_be_empty_and_need_not_be_there() -> None:
    assert Settings(**read_widgets(FIELDS, {"start": UNSET, "steps": 7})) == Settings(steps=7)
    assert Settings(**read_widgets(FIELDS, {"start": 3})).start == 3


def test_the_page_is_told_the_widgets_default() -> None:
    told = {row["name"]: row for row in describe_fields(FIELDS)}
    assert told["start"]["default"] == UNSET and told["start"]["type"] == "int"
    assert told["unit"]["choices"] == ["pixels", "percent"]
