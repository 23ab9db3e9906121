"""What is plugged in becomes references: every odd picture, masks, order; no pixel moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kleinod_pure.base.references import Reference, References
from kleinod_pure.references.pictures import CROP, CROP_AND_FILL, FILL
from kleinod_pure.references.prepare import Preparation, digest_of, prepare_references
from kleinod_pure.references.sizing import EACH, NATIVE


def prepare(*images, masks=None, **settings) -> References:
    named = {f"image_{n}": image for n, image in enumerate(images, start=1)}
    return prepare_references(named, Preparation(**settings), masks)


def picture(
    height: int = 64, width: int = 96, channels: int = 3, batch: int = 1, seed: int = 0
) -> torch.Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def test_a_picture_that_fits_keeps_every_bit() -> None:
    given_ = picture(208, 160)
    (item,) = prepare(given_).items
    assert torch.equal(item.image, given_)
    assert item.size == item.given == (160, 208) and item.lost == 0 and item.notes == ()


@given(st.integers(64, 130), st.integers(64, 130))
@settings(max_examples=20, deadline=None)
def test_native_cuts_where_vae_encode_cuts(height: int, width: int) -> None:
    given_ = picture(height, width)
    (image,) = prepare(given_, size=NATIVE).images
    top, left = height % 16 // 2, width % 16 // 2
    assert torch.equal(image, given_[:, top : top + height // 16 * 16, left : left + width // 16 * 16])


def spot(height: int, width: int, x: float, y: float, sigma: float) -> torch.Tensor:
    rows = torch.arange(height)[:, None] + 0.5 - y
    columns = torch.arange(width)[None, :] + 0.5 - x
    return torch.exp(-(rows**2 + columns**2) / (2 * sigma**2))[None, :, :, None].expand(-1, -1, -1, 3)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(150, 420),
    st.integers(150, 420),
    st.floats(0.35, 0.65),
    st.floats(0.35, 0.65),
    st.floats(0.02, 0.2),
)
def test_no_pixel_shift(height: int, width: int, across: float, down: float, megapixels: float) -> None:
    """A soft spot is found again where `shown` says, to a fiftieth of a pixel: the canvas of an edit, which
    is as large as the reference, lies exactly over it.
    """
    x, y = across * width, down * height
    references = prepare(spot(height, width, x, y, 9.0), size=EACH, megapixels=megapixels)
    (item,) = references.items
    seen = item.image[0, :, :, 0].double()
    total = seen.sum()
    found_x = float((seen.sum(0) * (torch.arange(seen.shape[1]) + 0.5)).sum() / total)
    found_y = float((seen.sum(1) * (torch.arange(seen.shape[0]) + 0.5)).sum() / total)
    left, top = item.shown[:2]
    assert found_x == pytest.approx((x - left) * item.scale, abs=0.02)
    assert found_y == pytest.approx((y - top) * item.scale, abs=0.02)
    assert references.canvas == item.size == (seen.shape[1], seen.shape[0])


def test_order_of_sockets_batches_and_lists() -> None:
    shades = [torch.full((n, 64, 64, 3), 0.0) for n in (1, 2, 1, 1)]
    for index, shade in enumerate(shades):
        shade += torch.linspace(0, 0.05, len(shade)).view(-1, 1, 1, 1) + 0.2 * index
    images = {
        "image_10": shades[3],
        "image_2": [shades[1], None, shades[2]],
        "image_1": shades[0],
        "image_3": None,
    }
    made = prepare_references(images, Preparation())
    assert [round(float(image.mean()), 2) for image in made.images] == [0.0, 0.2, 0.25, 0.4, 0.6]


def test_sizes_stay_different_and_the_canvas_is_the_matched_one() -> None:
    references = prepare(picture(64, 96), picture(128, 80), match_image=2)
    assert references.sizes == ((96, 64), (80, 128))
    assert references.canvas == (80, 128)
    with pytest.raises(ValueError, match="match_image is 3, but there are 2 images"):
        prepare(picture(), picture(), match_image=3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.full((1, 64, 64, 1), 0.25), (0.25, 0.25, 0.25)),
        (torch.full((64, 64, 3), 0.25), (0.25, 0.25, 0.25)),
        (torch.full((1, 64, 64, 3), 255, dtype=torch.uint8), (1, 1, 1)),
        (torch.full((1, 64, 64, 3), 0.5, dtype=torch.bfloat16), (0.5, 0.5, 0.5)),
        (torch.tensor([1.5, -0.5, 0.5]).expand(1, 64, 64, 3), (1, 0, 0.5)),
        (torch.tensor([0.2, 0.4, 0.6, 1.0]).expand(1, 64, 64, 4), (0.2, 0.4, 0.6)),
        (torch.tensor([0.0, 0.0, 0.0, 0.0]).expand(1, 64, 64, 4), (1, 1, 1)),
        (torch.tensor([0.2, 0.4, 0.6, 0.5]).expand(1, 64, 64, 4), (0.6, 0.7, 0.8)),
        (torch.tensor([0.2, 0.5]).expand(1, 64, 64, 2), (0.6, 0.6, 0.6)),
    ],
)
def test_odd_channels_types_and_values(image: torch.Tensor, expected: tuple[float, ...]) -> None:
    (made,) = prepare(image).images
    assert made.dtype == torch.float32 and made.shape == (1, 64, 64, 3)
    assert torch.allclose(made, torch.tensor(expected, dtype=torch.float32).expand(1, 64, 64, 3), atol=1e-6)


def test_background_of_transparency() -> None:
    clear = torch.zeros(1, 64, 64, 4)
    assert [
        float(prepare(clear, background=name).images[0].mean()) for name in ("white", "grey", "black")
    ] == [
        1.0,
        0.5,
        0.0,
    ]


def spoilt(value: float) -> torch.Tensor:
    image = picture()
    image[0, 3, 4, 1] = value
    return image


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({"image_1": spoilt(math.nan)}, "image_1 holds values that are not numbers"),
        ({"image_1": picture(), "image_2": spoilt(math.inf)}, "image_2 holds values that are not numbers"),
        ({"image_1": picture() * 255}, "divide by 255"),
        ({"image_1": picture(batch=0)}, "image_1 is empty"),
        ({"image_1": torch.zeros(1, 0, 64, 3)}, "image_1 is empty"),
        ({}, "connect at least one image"),
        ({"image_1": None, "image_2": []}, "connect at least one image"),
        ({"image_1": picture(channels=5)}, "image_1 has 5 channels"),
        ({"image_1": torch.zeros(64)}, "must be an IMAGE"),
        ({"image_1": "x"}, "image_1 is a value of the kind str, but must be an IMAGE"),
        ({"image_1": picture(40, 96)}, "image_1 is 96x40"),
        (
            {"image_1": torch.cat([picture(64, 1024, seed=s) for s in (1, 2)])},
            "image_1, picture 1 of 2, is 1024x64",
        ),
        ({"image_1": torch.zeros(101, 64, 64, 3)}, "at most 100"),
    ],
)
def test_what_cannot_be_a_reference_is_named(images, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prepare_references(images, Preparation())


def disc(height: int, width: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, box[1] : box[3], box[0] : box[2]] = 1
    return mask


def test_a_mask_hides_the_rest() -> None:
    given_ = picture(128, 128)
    (made,) = prepare(given_, masks={"mask_1": disc(128, 128, (16, 32, 80, 112))}, mask_use=FILL).images
    assert torch.equal(made[:, 32:112, 16:80], given_[:, 32:112, 16:80])
    assert (made[:, :32] == 1).all() and (made[:, :, 80:] == 1).all()


def test_a_mask_crops() -> None:
    given_ = picture(256, 256)
    made = prepare(given_, masks={"mask_1": disc(256, 256, (16, 32, 112, 96))}, mask_use=CROP)
    assert torch.equal(made.images[0], given_[:, 32:96, 16:112])
    assert made.items[0].shown == (16, 32, 112, 96) and made.items[0].lost == 0
    soft = disc(256, 256, (16, 32, 112, 96)) * 0.5
    (both,) = prepare(given_, masks={"mask_1": soft}, mask_use=CROP_AND_FILL, background="black").images
    assert torch.allclose(both, given_[:, 32:96, 16:112] / 2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_crops_always_make_a_reference(data) -> None:
    """However thin or near the edge the mask is, the part around it can be used and holds all of it."""
    height, width = data.draw(st.integers(64, 300)), data.draw(st.integers(64, 300))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(x + 1, width)), data.draw(st.integers(y + 1, height))
    mask = disc(height, width, (x, y, right, bottom))
    (item,) = prepare(picture(height, width), masks={"mask_1": mask}, mask_use=CROP).items
    asked = item.asked
    assert asked[0] <= x and asked[1] <= y and asked[2] >= right and asked[3] >= bottom
    assert asked[2] <= width and asked[3] <= height


def test_the_empty_mask_of_load_image_means_all() -> None:
    given_ = picture(96, 128)
    (item,) = prepare(given_, masks={"mask_1": torch.zeros(1, 64, 64)}).items
    assert torch.equal(item.image, given_)
    assert "empty" in item.notes[0]


def test_masks_belong_to_the_image_of_their_number() -> None:
    plain, masked = picture(64, 64), picture(64, 64, batch=2)
    black = {"masks": {"mask_2": [disc(64, 64, (0, 0, 32, 64))]}, "background": "black"}
    made = prepare(plain, masked, **black).images
    assert torch.equal(made[0], plain)
    assert all((image[:, :, 32:] == 0).all() and (image[:, :, :32] > 0).any() for image in made[1:])
    larger = torch.nn.functional.interpolate(disc(64, 64, (0, 0, 32, 64))[None], scale_factor=2)[0]
    again = prepare(plain, masked, masks={"mask_2": larger}, background="black").images
    assert (again[1][:, :, 33:] == 0).all()


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"mask_2": torch.ones(1, 64, 96)}, "mask_2 is connected, but image_2 is not"),
        ({"mask_1": torch.ones(3, 64, 96)}, "mask_1 holds 3 masks, but image_1 holds 1 images"),
        ({"mask_1": torch.ones(1, 96, 64)}, "mask of image_1 is 64x96, but the image is 96x64"),
        ({"mask_1": torch.full((1, 64, 96), math.nan)}, "mask of image_1 holds values that are not"),
    ],
)
def test_masks_that_do_not_fit(masks, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prepare(picture(), masks=masks)


@pytest.mark.parametrize("bad", [{"mask_use": "x"}, {"background": "x"}])
def test_choices_are_checked(bad) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        Preparation(**bad)


def test_digests_tell_pictures_apart() -> None:
    one, other = picture(), picture(seed=1)
    assert digest_of(one) == digest_of(one.clone()) != digest_of(other)
    assert digest_of(torch.zeros(1, 64, 128, 3)) != digest_of(torch.zeros(1, 128, 64, 3))


def test_the_value_refuses_what_was_not_prepared() -> None:
    box = (0, 0, 64, 64)
    for shape in ((2, 64, 64, 3), (1, 64, 64, 4), (1, 60, 64, 3), (1, 0, 64, 3), (64, 64, 3)):
        with pytest.raises(ValueError, match="let Klein References prepare it"):
            Reference(torch.zeros(shape), (64, 64), box, box, "x")
    with pytest.raises(ValueError, match="holds no image"):
        References(())


def test_what_the_remote_nodes_upload() -> None:
    """The value in their hands: the pictures in order, as they are numbered in the prompt."""
    import base64
    import io

    from kleinod_pure.remote.job_request import RunContext
    from kleinod_pure.remote.services import find_service
    from PIL import Image

    def ask(name: str, prompt: str, value: object) -> dict:
        inputs = {prompt: "x", "references": value}
        return dict(find_service(name).make_request(RunContext(), inputs).body)

    references = prepare(picture(64, 96), picture(130, 90, channels=4, seed=1), picture(80, 64, seed=2))
    runware = ask("runware", "positive_prompt", references)
    sent = [uri.partition(",")[2] for uri in runware["inputs"]["referenceImages"]]
    bfl = ask("bfl", "prompt", references)
    assert [bfl["input_image"], bfl["input_image_2"], bfl["input_image_3"]] == sent
    for coded, image in zip(sent, references.images, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(coded)))) / 255
        assert np.abs(pixels - image[0].numpy()).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="takes at most 4"):
        ask("bfl", "prompt", prepare(picture(batch=5)))
