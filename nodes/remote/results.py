"""From the result of a job to what a node puts out: pictures, seeds, cost and a readable account."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ..base.sentences import Sentence, join, say
from .errors import Moderated
from .images import make_placeholder
from .job_request import JobResult, ReceivedImage
from .status import MODERATION

POLICIES = ("error", "placeholder", "skip")


@dataclass(frozen=True)
class Delivery:
    """batches: `[B, H, W, 3]` float32 each, one per size. seeds belong to the pictures in order."""

    batches: tuple[np.ndarray, ...]
    seeds: tuple[int, ...]
    cost_usd: float
    info: str
    warning: Sentence


def deliver(result: JobResult, policy: str, size: tuple[int, int] = (0, 0)) -> Delivery:
    """Apply the moderation policy and lay out the pictures that arrived.

    policy "error": Moderated if moderation left nothing; pictures that arrived are never withheld.
    "placeholder": a grey picture of `size` (width, height) stands for each one kept back or flagged.
    "skip": those are left out.
    """
    shown = [
        entry for entry in (_choose(picture, policy, result, size) for picture in result.images) if entry
    ]
    if policy == "error" and not shown and any(p.kind == MODERATION for p in result.images):
        reasons = "; ".join(dict.fromkeys(p.message for p in result.images if p.message))
        raise Moderated(
            say(
                "%1. Change the prompt or the images, or set 'moderation' to placeholder or skip to let "
                "the graph go on. Whether a moderated job is billed is up to the service.",
                reasons,
            )
        )
    pixels = [entry[0] for entry in shown]
    return Delivery(
        batches=stack(pixels),
        seeds=tuple(entry[1] for entry in shown),
        cost_usd=_paid(result),
        info=json.dumps(describe(result, size), indent=1),
        warning=_warn(result, size),
    )


def stack(pixels: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """One batch if all sizes agree, else each picture on its own: nothing is cropped or stretched."""
    if len(pixels) > 1 and len({p.shape for p in pixels}) == 1:
        return (np.stack(pixels),)
    return tuple(p[None] for p in pixels)


def describe(result: JobResult, size: tuple[int, int]) -> dict[str, Any]:
    """The account of a job as plain values: ids, true sizes, cost, flags, time. No prompt, no key, no
    address.
    """
    job = result.job
    arrived = [image for image in result.images if image.pixels is not None]
    return {
        "service": result.service,
        "job": job.id if job else "",
        "service_id": job.vendor_id if job else "",
        "profile": job.profile if job else "",
        "host": urlsplit(job.base).netloc if job else "",
        "state": job.state if job else "priced",
        "image_ids": [image.item_id for image in arrived],
        "seeds": [image.seed for image in arrived],
        "sizes": [list(size) for size in _list_sizes(result)],
        "asked_size": list(size),
        "cost_usd": result.cost_usd,
        "price_usd": None if job else result.estimate_usd,
        "estimate_usd": result.estimate_usd,
        "paid_now": result.paid_now,
        "nsfw": [image.nsfw for image in arrived],
        "not_delivered": [
            {"kind": image.kind, "reason": image.message} for image in result.images if image.pixels is None
        ],
        "seconds": round(result.seconds, 3),
    }


def _list_sizes(result: JobResult) -> list[tuple[int, int]]:
    """(width, height) of every picture that arrived."""
    return [
        (image.pixels.shape[1], image.pixels.shape[0]) for image in result.images if image.pixels is not None
    ]


def _choose(
    picture: ReceivedImage, policy: str, result: JobResult, size: tuple[int, int]
) -> tuple[np.ndarray, int] | None:
    withheld = picture.kind == MODERATION
    if (withheld or picture.nsfw) and policy != "error":
        if policy == "skip":
            return None
        arrived = next(iter(_list_sizes(result)), (1024, 1024))
        width, height = size if all(size) else arrived
        return make_placeholder(width, height), picture.seed or 0
    return None if picture.pixels is None else (picture.pixels, picture.seed or 0)


def _paid(result: JobResult) -> float:
    """What this run paid: nothing for a job that was already there; the price where it was only asked."""
    if result.job is None:
        return result.estimate_usd
    if not result.paid_now:
        return 0.0
    return result.estimate_usd if result.cost_usd is None else result.cost_usd


def _warn(result: JobResult, size: tuple[int, int]) -> Sentence:
    words = []
    missing = [p for p in result.images if p.pixels is None]
    if missing:
        reasons = "; ".join(dict.fromkeys(p.message for p in missing if p.message))
        counts = len(missing), len(result.images)
        words.append(say("%1 of %2 pictures did not come: %3", *counts, reasons))
    if any(p.nsfw for p in result.images):
        words.append(say("the service flagged a picture as not safe for work"))
    others = set(_list_sizes(result)) - {size}
    if all(size) and others:
        odd = ", ".join(f"{width}x{height}" for width, height in sorted(others))
        words.append(say("%1 came instead of %2x%3", odd, *size))
    return join("; ", [*words, *([result.note] if result.note else [])])
