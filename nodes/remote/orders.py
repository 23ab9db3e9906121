"""From what is plugged into a remote node to an `Order`. Runs in the job's thread: encoding images takes a
while.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from ..base.errors import InputError
from . import bfl, images, runware
from .flight import Order
from .hosts import find_service
from .job_list import strip_request
from .ledger import Claim
from .limits import Limits
from .runware import PRICE_CHECKS

BFL_UPLOAD_PIXELS = 4 * 2**20
RUNWARE_UPLOAD_SIDE = 2048
_PRICE_MODES = dict(zip(PRICE_CHECKS, ("off", "show", "only"), strict=True))


@dataclass(frozen=True)
class Place:
    """Where an order comes from, and the limits in force."""

    node_id: str = ""
    prompt_id: str = ""
    limits: Limits = Limits()


def order_runware(
    place: Place,
    fields: dict[str, Any],
    *,
    acceleration: Any = None,
    loras: Any = None,
    references: Any = None,
    face_refinement: Any = None,
    options: runware.RunwareOptions | None = None,
    pictures: Any = None,
    deadline: float = 600.0,
    take: int = 0,
) -> Order:
    """A Runware order. `fields` are those of `RunwareRequest`; the values on the wires speak through
    `to_runware`.
    """
    options = options or runware.RunwareOptions()
    frames = _frames(references, pictures, runware.MOST_REFERENCES, "Runware")
    request = runware.RunwareRequest(
        **fields,
        accelerator=None if acceleration is None else acceleration.to_runware(),
        loras=() if loras is None else tuple(_lora_rows(loras.to_runware())),
        references=[
            images.to_data_uri(images.encode_png(f, longest_side=RUNWARE_UPLOAD_SIDE)) for f in frames
        ],
        ultralytics=runware.read_ultralytics(face_refinement),
        options=options,
    )
    summary = {
        "model": request.model,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "seed": request.seed,
        "references": len(frames),
    }
    claim = _claim(
        "runware",
        find_service("runware").base,
        "imageInference",
        request.to_task(),
        place,
        options.profile,
        take,
        request.number_results,
        request.estimate_usd(),
        summary,
    )
    return Order(claim, "global", deadline, _PRICE_MODES[options.price_check], place.limits.concurrency)


def order_bfl(
    place: Place,
    fields: dict[str, Any],
    *,
    references: Any = None,
    pictures: Any = (),
    region: str = "global",
    profile: str = "default",
    price_check: str = PRICE_CHECKS[0],
    deadline: float = 600.0,
    take: int = 0,
) -> Order:
    """A BFL order. `fields` are those of `BflRequest`; `pictures` are IMAGE inputs, None where nothing is
    connected.
    """
    frames = _frames(references, [p for p in pictures if p is not None], bfl.MOST_IMAGES, "BFL")
    encoded = [
        base64.b64encode(images.encode_png(f, most_pixels=BFL_UPLOAD_PIXELS)).decode("ascii") for f in frames
    ]
    request = bfl.BflRequest(**fields, images=encoded)
    summary = {
        "model": request.endpoint,
        "width": request.width,
        "height": request.height,
        "seed": request.seed,
        "references": len(frames),
    }
    claim = _claim(
        "bfl",
        find_service("bfl", region).base,
        request.endpoint,
        request.to_body(),
        place,
        profile,
        take,
        1,
        request.estimate_usd(),
        summary,
    )
    return Order(claim, region, deadline, _PRICE_MODES[price_check], place.limits.concurrency)


def _claim(
    service: str,
    base: str,
    endpoint: str,
    body: dict[str, Any],
    place: Place,
    profile: str,
    take: int,
    wanted: int,
    estimate: float,
    summary: dict[str, Any],
) -> Claim:
    # The prompt stays out of the ledger; its fingerprint tells two jobs apart in the list.
    prompt = body.get("positivePrompt") or body.get("prompt") or ""
    fingerprint = hashlib.sha256(prompt.encode()).hexdigest()[:12]
    summary = summary | {"prompt_sha256": fingerprint, "request": strip_request(body)}
    return Claim(
        service,
        base,
        endpoint,
        body,
        profile,
        take,
        wanted,
        estimate,
        place.node_id,
        place.prompt_id,
        summary,
        place.limits.run_usd,
        place.limits.day_usd,
    )


def _frames(references: Any, pictures: Any, most: int, title: str) -> list[Any]:
    batches = [] if references is None else list(references.images)
    batches += (
        [] if pictures is None else list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
    )
    frames = images.split_frames(batches) if batches else []
    if len(frames) > most:
        raise InputError(
            f"references and images hold {len(frames)} pictures together, and {title} takes at most {most}. "
            f"Connect "
            "fewer; each frame of a batch counts as one."
        )
    return frames


def _lora_rows(value: Any) -> list[dict[str, Any]]:
    return list(value.get("lora", ())) if isinstance(value, dict) else list(value)
