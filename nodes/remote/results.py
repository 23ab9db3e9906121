"""From the outcome of a job to what a node puts out: pictures, seeds, cost and a readable account."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import Moderated
from .flight import Outcome, Picture
from .images import make_placeholder
from .report import MODERATION

POLICIES = ("error", "placeholder", "skip")


@dataclass(frozen=True)
class Delivery:
    """batches: `[B, H, W, 3]` float32 each, one per size. seeds belong to the pictures in order."""

    batches: tuple[np.ndarray, ...]
    seeds: tuple[int, ...]
    cost_usd: float
    info: str
    warning: str


def deliver(outcome: Outcome, policy: str, size: tuple[int, int] = (0, 0)) -> Delivery:
    """Apply the moderation policy and lay out the pictures that arrived.

    policy "error": Moderated if moderation left nothing; pictures that arrived are never withheld.
    "placeholder": a grey picture of `size` (width, height) stands for each one kept back or flagged.
    "skip": those are left out.
    """
    shown = [
        entry for entry in (_choose(picture, policy, outcome, size) for picture in outcome.pictures) if entry
    ]
    if policy == "error" and not shown and any(p.kind == MODERATION for p in outcome.pictures):
        reasons = "; ".join(dict.fromkeys(p.message for p in outcome.pictures if p.message))
        raise Moderated(
            f"{reasons}. Change the prompt or the images, or set 'moderation' to placeholder or skip to let "
            f"the graph "
            "go on. Whether a moderated job is billed is up to the service."
        )
    pixels = [entry[0] for entry in shown]
    return Delivery(
        batches=stack(pixels),
        seeds=tuple(entry[1] for entry in shown),
        cost_usd=_paid(outcome),
        info=json.dumps(describe(outcome, size), indent=1),
        warning=_warn(outcome, size),
    )


def stack(pixels: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """One batch if all sizes agree, else each picture on its own: nothing is cropped or stretched."""
    if len(pixels) > 1 and len({p.shape for p in pixels}) == 1:
        return (np.stack(pixels),)
    return tuple(p[None] for p in pixels)


def describe(outcome: Outcome, size: tuple[int, int]) -> dict[str, Any]:
    """The account of a job as plain values: ids, true sizes, cost, flags, time. No prompt, no key, no
    address.
    """
    job = outcome.job
    arrived = [p for p in outcome.pictures if p.pixels is not None]
    return {
        "service": job.service,
        "job": job.id,
        "service_id": job.vendor_id,
        "state": job.state,
        "image_ids": [p.item_id for p in arrived],
        "seeds": [p.seed for p in arrived],
        "sizes": [[int(p.pixels.shape[1]), int(p.pixels.shape[0])] for p in arrived],
        "asked_size": list(size),
        "cost_usd": outcome.cost_usd,
        "price_usd": outcome.price_usd,
        "estimate_usd": job.estimate_usd,
        "paid_now": outcome.paid_now,
        "nsfw": [p.nsfw for p in arrived],
        "not_delivered": [
            {"kind": p.kind, "reason": p.message} for p in outcome.pictures if p.pixels is None
        ],
        "seconds": round(outcome.seconds, 3),
    }


def _choose(
    picture: Picture, policy: str, outcome: Outcome, size: tuple[int, int]
) -> tuple[np.ndarray, int] | None:
    withheld = picture.kind == MODERATION
    if (withheld or picture.nsfw) and policy != "error":
        if policy == "skip":
            return None
        arrived = next((p.pixels for p in outcome.pictures if p.pixels is not None), None)
        width, height = (
            size
            if all(size)
            else (arrived.shape[1], arrived.shape[0])
            if arrived is not None
            else (1024, 1024)
        )
        return make_placeholder(width, height), picture.seed or 0
    return None if picture.pixels is None else (picture.pixels, picture.seed or 0)


def _paid(outcome: Outcome) -> float:
    """What this run paid: nothing for a job that was already there; the price where it was only asked."""
    if outcome.job.state == "priced":
        return float(outcome.price_usd or 0.0)
    if not outcome.paid_now:
        return 0.0
    return float(outcome.cost_usd if outcome.cost_usd is not None else outcome.job.estimate_usd)


def _warn(outcome: Outcome, size: tuple[int, int]) -> str:
    words = []
    missing = [p for p in outcome.pictures if p.pixels is None]
    if missing:
        reasons = "; ".join(dict.fromkeys(p.message for p in missing if p.message))
        words.append(f"{len(missing)} of {len(outcome.pictures)} pictures did not come: {reasons}")
    if any(p.nsfw for p in outcome.pictures):
        words.append("the service flagged a picture as not safe for work")
    sizes = {(p.pixels.shape[1], p.pixels.shape[0]) for p in outcome.pictures if p.pixels is not None}
    if all(size) and sizes - {tuple(size)}:
        odd = ", ".join(f"{w}x{h}" for w, h in sorted(sizes - {tuple(size)}))
        words.append(f"{odd} came instead of {size[0]}x{size[1]}")
    return "; ".join(words)
