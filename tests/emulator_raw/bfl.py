"""BFL's klein endpoint as its document describes it: submit, poll the address it gives, credits."""

from __future__ import annotations

import random
import uuid
from typing import Any

from .book import Book

FIELDS = {
    "prompt", "input_image", "input_image_2", "input_image_3", "input_image_4", "seed", "width", "height",
    "safety_tolerance", "output_format", "webhook_url", "webhook_secret",
}  # fmt: skip


class Bfl:
    """What /v1/flux-2-klein-4b, /v1/get_result and /v1/credits answer."""

    def __init__(self, book: Book, base: str, key: str) -> None:
        self.book, self.base, self.key = book, base, key
        self.picture_base = base

    def submit(self, endpoint: str, body: Any, key: str, work: bool) -> tuple[int, Any]:
        if key != self.key:
            return 403, {"detail": "Not authenticated"}
        if endpoint != "flux-2-klein-4b":
            return 404, {"detail": "Not Found"}
        faults = check_body(body)
        if faults:
            return 422, {"detail": [{"loc": ["body", n], "msg": m, "type": "value_error"} for n, m in faults]}
        if not work:
            return 200, None
        seed = body.get("seed")
        job_id = str(uuid.uuid4())
        job = self.book.accept(
            "bfl", job_id, body, 0.014, [random.randrange(2**32) if seed is None else seed]
        )
        return 200, {
            "id": job.id,
            "polling_url": f"{self.base}/v1/get_result?id={job.id}",
            "cost": 1.4,
            "input_mp": 0.0,
            "output_mp": 1.0,
        }

    def poll(self, job_id: str, key: str) -> tuple[int, Any]:
        if key != self.key:
            return 403, {"detail": "Not authenticated"}
        job = self.book.poll("bfl", job_id)
        if job is None:
            return 404, {"id": job_id, "status": "Task not found", "result": None}
        (item,) = job.items
        if not job.is_over:
            return 200, {"id": job.id, "status": "Pending", "result": None, "progress": 0.5}
        if item.fate == "failure":
            return 200, {"id": job.id, "status": "Error", "result": None, "details": {"error": "It broke."}}
        if item.fate == "moderation":
            reasons = {"Moderation Reasons": ["Protected content"]}
            return 200, {"id": job.id, "status": "Content Moderated", "result": None, "details": reasons}
        name = job.request.get("output_format") or "jpeg"
        sample = f"{self.picture_base}/delivery/{item.id}.{name}?se=2030-01-01&sig=a%2Fb%3D"
        result = {"sample": sample, "prompt": job.request["prompt"], "seed": item.seed}
        return 200, {"id": job.id, "status": "Ready", "result": result}

    def credits(self, key: str) -> tuple[int, Any]:
        return (200, {"credits": 1250.0}) if key == self.key else (403, {"detail": "Not authenticated"})


def check_body(body: Any) -> list[tuple[str, str]]:
    """(field, what is wrong) for everything the document does not allow."""
    if not isinstance(body, dict):
        return [("body", "must be an object")]
    found = [(name, "is not a field") for name in body if name not in FIELDS]
    if not isinstance(body.get("prompt"), str):
        found.append(("prompt", "is required"))
    for name, low, high in (
        ("width", 64, None), ("height", 64, None), ("safety_tolerance", 0, 5), ("seed", None, None)
    ):  # fmt: skip
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            found.append((name, "must be an integer"))
        elif (low is not None and value < low) or (high is not None and value > high):
            found.append((name, f"must be from {low} to {high}"))
    for name in ("input_image", "input_image_2", "input_image_3", "input_image_4"):
        if body.get(name) is not None and not isinstance(body[name], str):
            found.append((name, "must be text"))
    if body.get("output_format") not in (None, "jpeg", "png", "webp"):
        found.append(("output_format", "must be jpeg, png or webp"))
    address = body.get("webhook_url")
    if address is not None and not (isinstance(address, str) and 1 <= len(address) <= 2083):
        found.append(("webhook_url", "must have 1 to 2083 characters"))
    return found
