"""Conditionings of crops: nothing of the whole picture stays, and rows of one batch keep their own words."""

from __future__ import annotations

import torch
from kleinod_pure.regions.conditioning import fits_one_batch, stack_rows, strip_picture, with_references


def words(seed: int, tokens: int = 8, **options) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, tokens, 6, generator=generator), {"pooled_output": None, **options}]]


def test_what_belongs_to_the_whole_picture_goes_and_is_named() -> None:
    given = words(
        1,
        reference_latents=[torch.zeros(1)],
        area=(8, 8, 0, 0),
        mask=torch.ones(1, 4, 4),
        mask_strength=1.0,
        control=object(),
        start_percent=0.2,
    )
    stripped, dropped = strip_picture(given)
    assert dropped == ("ControlNet", "areas", "masks", "reference images")
    assert stripped[0][1] == {"pooled_output": None, "start_percent": 0.2}
    assert stripped[0][0] is given[0][0] and "area" in given[0][1], "the given one is left as it was"
    assert strip_picture(words(1))[1] == ()


def test_references_replace_what_was_there() -> None:
    latents = [torch.zeros(2, 3), torch.ones(1, 3)]
    made = with_references([*words(1, reference_latents=[torch.ones(1)]), *words(2)], latents)
    assert all(options["reference_latents"] == latents for _, options in made)


def test_equal_shapes_share_a_batch_each_with_its_own_row() -> None:
    first, second = words(1, attention_mask=torch.ones(1, 8)), words(2, attention_mask=torch.zeros(1, 8))
    assert fits_one_batch(first, second)
    ((tensor, options),) = stack_rows([first, second, first])
    assert torch.equal(tensor, torch.cat([first[0][0], second[0][0], first[0][0]]))
    assert options["attention_mask"].sum(dim=1).tolist() == [8, 0, 8]
    assert stack_rows([first, first]) is first


def test_what_differs_in_more_than_its_words_does_not() -> None:
    plain = words(1)
    assert fits_one_batch(plain, plain)
    for other in (words(2, tokens=9), words(2, start_percent=0.5), words(2) + words(3)):
        assert not fits_one_batch(plain, other) and not fits_one_batch(other, plain)


def test_weights_of_references_are_not_called_a_controlnet() -> None:
    """They travel as one, alone or in a chain with real ones."""

    class Weights:
        title = "weights of references"
        previous_controlnet: object = None

    class Network:
        previous_controlnet: object = None

    conditioning = [[words(1)[0][0], {"control": Weights()}]]
    assert strip_picture(conditioning)[1] == ("weights of references",)
    chained = Weights()
    chained.previous_controlnet = Network()
    assert strip_picture([[words(1)[0][0], {"control": chained}]])[1] == (
        "ControlNet",
        "weights of references",
    )
