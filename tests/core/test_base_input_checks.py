"""Values of the wrong kind on a socket: each gets a sentence with the input's name."""

from __future__ import annotations

import pytest
import torch
from kleinod_pure.base.input_checks import check_inputs
from kleinod_pure.base.values import Acceleration

TYPES = (
    "MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "KLEINOD_ACCELERATION",
    "KLEINOD_REFERENCES", "KLEINOD_LORAS", "LORA_STACK", "KLEINOD_FACE_REFINEMENT", "KLEINOD_RUNWARE_OPTIONS",
)  # fmt: skip
PICTURE = torch.zeros(1, 16, 16, 3)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", ["x" * 500, 5, float("nan"), True, {}, {"samples": "x"}, [1], object()])
def test_what_is_no_value_of_the_socket_is_named(kind: str, value: object) -> None:
    if kind == "LORA_STACK" and isinstance(value, list):
        return  # its entries are checked, with a sentence of their own, where they are read
    with pytest.raises(ValueError, match=r"^there is .*, not .*: connect one, for example from ") as refused:
        check_inputs({"there": (kind, False)}, {"there": value})
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("IMAGE", PICTURE),
        ("MASK", PICTURE[..., 0]),
        ("LATENT", {"samples": PICTURE}),
        ("CONDITIONING", [[PICTURE, {}]]),
        ("CONDITIONING", []),
        ("KLEINOD_ACCELERATION", Acceleration()),
        ("LORA_STACK", [("a", 1.0, 1.0)]),
        ("STRING", 5),
    ],
)
def test_what_fits_passes(kind: str, value: object) -> None:
    check_inputs({"there": (kind, True)}, {"there": value})


@pytest.mark.parametrize("kind", ["MODEL", "IMAGE", "LATENT"])
def test_an_empty_socket_is_wrong_only_where_it_must_be_connected(kind: str) -> None:
    check_inputs({"there": (kind, False)}, {"there": None})
    check_inputs({"there": (kind, True)}, {})  # ComfyUI's own matter
    with pytest.raises(ValueError, match="^there is empty: connect"):
        check_inputs({"there": (kind, True)}, {"there": None})
