"""Reference keys without a network: what is stored, when it is served, and when it must not be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kleinod_pure.acceleration.clock import SURE_FROM
from kleinod_pure.acceleration.policies.policy import Call, ModelFacts, RunFacts, Step
from kleinod_pure.acceleration.policies.references import ReferenceReuse
from kleinod_pure.base.values import Acceleration

BLOCKS = (("double", 0), ("single", 0), ("single", 1))
TEXT, PICTURE, REFERENCES = 3, 4, 2
SHAPES = ((128, 1, 2),)


NOTHING = torch.zeros(1)


def make(interval: int = 1, exact: bool = False) -> ReferenceReuse:
    cache = "exact (9B-KV)" if exact else "refresh"
    settings = Acceleration("none", reference_cache=cache, reference_interval=interval)
    return ReferenceReuse(settings, RunFacts((1.0, 0.0), model=ModelFacts(1, 2)))


def block(keys: ReferenceReuse, name: tuple[str, int], rows: int, served: bool, mark: float = 0.0) -> dict:
    length = TEXT + PICTURE + (0 if served else REFERENCES)
    k = (
        torch.arange(rows * length, dtype=torch.float32).reshape(rows, 1, length, 1).expand(-1, 1, -1, 8)
        + mark
    )
    extra = {"reference_image_num_tokens": [REFERENCES], "block_type": name[0], "block_index": name[1]}
    return keys.attend(k, k, -k, None, extra)


def call(
    keys: ReferenceReuse, uuids: list[Any], blocks: Any = BLOCKS, shapes: Any = SHAPES, masked: bool = False
) -> tuple[bool, list[dict]]:
    """One call of a network, a row a condition. Returns whether it was served, and what each block got."""
    keys.begin_call(Call(uuids, len(uuids), PICTURE, 1, shapes, masked))
    inputs = {
        "img": torch.zeros(len(uuids), PICTURE + REFERENCES, 8),
        "txt": torch.zeros(len(uuids), TEXT, 8),
        "transformer_options": {"reference_image_num_tokens": [REFERENCES]},
    }
    served = keys.enter(inputs)["img"].shape[1] == PICTURE
    answers = [block(keys, name, len(uuids), served) for name in blocks]
    keys.end_call()
    return served, answers


def step(keys: ReferenceReuse, index: int | None, uuids: list[Any], **options: Any) -> bool:
    keys.begin_step(Step(index, 0.5))
    served, _ = call(keys, uuids, **options)
    keys.end_step(NOTHING, NOTHING)
    return served


def filled(interval: int = 3, exact: bool = False) -> ReferenceReuse:
    keys = make(interval, exact)
    for index in range(SURE_FROM):
        step(keys, index, ["a", "b"])
    return keys


def test_full_steps_come_back_at_their_interval() -> None:
    keys = filled(interval=3)
    served = [step(keys, SURE_FROM + i, ["a", "b"]) for i in range(7)]
    assert served == [True, True, False, True, True, False, True]


def test_each_row_gets_the_keys_of_its_own_condition() -> None:
    """Rows of a call are numbered through, so the keys of "a" and "b" as stored are known."""
    keys = filled()
    keys.begin_step(Step(SURE_FROM, 0.5))
    served, answers = call(keys, ["b", "a"])
    assert served
    length = TEXT + PICTURE + REFERENCES
    for row, stored in enumerate((1, 0)):
        wanted = torch.arange(length, dtype=torch.float32)[-REFERENCES:] + stored * length
        assert torch.equal(answers[0]["k"][row, 0, -REFERENCES:, 0], wanted)
        assert torch.equal(answers[0]["v"][row, 0, -REFERENCES:, 0], -wanted)


def test_half_a_set_of_blocks_is_never_served_and_is_completed() -> None:
    """As when a block cache stops the first full step early."""
    keys = make(9)
    for index in range(SURE_FROM):
        step(keys, index, ["a"], blocks=BLOCKS[:1])
    assert not step(keys, SURE_FROM, ["a"])
    assert step(keys, SURE_FROM + 1, ["a"])


@pytest.mark.parametrize(
    "change", [{"shapes": ((128, 2, 1),)}, {"masked": True}], ids=["another size", "an attention mask"]
)
def test_what_was_stored_must_fit(change: dict[str, Any]) -> None:
    assert step(filled(), SURE_FROM, ["a", "b"])
    assert not step(filled(), SURE_FROM, ["a", "b"], **change)
    assert not step(filled(), SURE_FROM, ["a", "c"])
    assert not step(filled(), None, ["a", "b"]), "a step off the schedule"


def test_a_condition_that_runs_twice_a_step() -> None:
    """Refresh gives up; exact keys hold for every run of the condition that sees the same references."""
    for exact in (False, True):
        keys = filled(exact=exact)
        keys.begin_step(Step(SURE_FROM, 0.5))
        first, _ = call(keys, ["a"])
        second, answers = call(keys, ["a"])
        assert first and not second
        assert ("attn_mask" in answers[0]) == exact
        keys.end_step(NOTHING, NOTHING)
        assert step(keys, SURE_FROM + 1, ["a", "b"]) == exact


def test_exact_hides_the_picture_from_references_and_nothing_else() -> None:
    keys = make(exact=True)
    keys.begin_step(Step(0, 1.0))
    _, answers = call(keys, ["a"])
    mask = answers[0]["attn_mask"]
    hidden = mask < -1e30
    assert mask.dtype == torch.float32, "added to the scores: ComfyUI would add True as 1"
    assert hidden[-REFERENCES:, :-REFERENCES].all() and int(hidden.sum()) == REFERENCES * (TEXT + PICTURE)
    assert all(answer["attn_mask"] is mask for answer in answers), "one for all blocks"
    assert step(keys, 1, ["a"]) and step(keys, None, ["a"])


def test_nothing_is_held_where_several_gpus_share_the_run() -> None:
    keys = filled(exact=True)
    keys.hold_nothing()
    assert not step(keys, SURE_FROM, ["a", "b"])
    assert not step(keys, SURE_FROM + 1, ["a", "b"])
    assert not step(keys, SURE_FROM + 2, ["a", "b"])
