"""The account book as the job panel shows it: recent jobs, their pictures, what each day cost.

Prompts and source pictures are in no answer: the ledger does not hold them.
"""

from __future__ import annotations

import io
import json
import time
from collections import defaultdict
from typing import Any

from PIL import Image

from ..base.errors import InputError
from .engine import Engine
from .images import decode
from .ledger import Item, Job, start_of_day

THUMBNAIL_SIDE = 192
NO_JOB = "no job yet: refresh after one was sent"
_RECOVERABLE = ("submitting", "accepted", "saved", "moderated", "unknown")
_UNFINISHED = ("submitting", "accepted")
_PRIVATE = frozenset(
    {"positivePrompt", "negativePrompt", "prompt", "inputs", "taskUUID", "webhookURL", "uploadEndpoint"}
    | {"webhook_url", "webhook_secret"}
)


def list_jobs(engine: Engine, limit: int = 100) -> dict[str, Any]:
    """`{"jobs": [...], "spent_today_usd": USD, "spent_by_day": [{"day": "2026-11-21", "usd": 0.01}, ...]}`.

    Unfinished jobs first, then the newest; days with spending among the last seven, the newest first.
    """
    return {
        "jobs": [_describe(engine, job) for job in engine.ledger.recent(limit)],
        "spent_today_usd": engine.ledger.spent_since(start_of_day()),
        "spent_by_day": _list_days(engine),
    }


def list_choices(engine: Engine) -> list[str]:
    """One line for each job that can be fetched; the id at its end is what counts. A line that says so where
    there is none: over an empty list the page would say "Loading..." for ever."""
    return [describe_choice(job) for job in engine.ledger.recent(100, _RECOVERABLE)] or [NO_JOB]


def describe_choice(job: Job) -> str:
    facts = json.loads(job.summary)
    size = f"{facts['width']}x{facts['height']} " if facts.get("width") else ""
    state = "unfinished" if job.state in _UNFINISHED else job.state
    moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
    return f"{moment} {job.service} {size}{state} {job.id}"


def read_thumbnail(engine: Engine, job_id: str, position: int) -> bytes:
    """A WebP, at most 192 pixels a side, of one picture of a job. ValueError if it is not here any more."""
    item = _find_picture(engine, job_id, position)
    picture = Image.fromarray((decode(_read(engine, item)) * 255 + 0.5).astype("uint8"))
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    made = io.BytesIO()
    picture.save(made, "WEBP", quality=80)
    return made.getvalue()


def read_picture(engine: Engine, job_id: str, position: int) -> bytes:
    """The file as the service sent it. ValueError if it is not here any more."""
    return _read(engine, _find_picture(engine, job_id, position))


def strip_request(body: dict[str, Any]) -> dict[str, Any]:
    """A request without texts, pictures, addresses and id: what the ledger may keep and the panel copy."""
    return {
        name: strip_request(value) if isinstance(value, dict) else value
        for name, value in body.items()
        if name not in _PRIVATE and not name.startswith("input_image")
    }


def _describe(engine: Engine, job: Job) -> dict[str, Any]:
    shown = ("id", "service", "state", "profile", "wanted", "estimate_usd", "cost_usd", "message", "created")
    facts = json.loads(job.summary)
    pictures = [
        {"position": item.position, "width": item.width, "height": item.height, "seed": item.seed}
        for item in engine.ledger.items(job.id)
        if item.kind == "picture" and item.file
    ]
    return {name: getattr(job, name) for name in shown} | {
        "model": facts.get("model", ""),
        "size": [facts.get("width"), facts.get("height")],
        "request": facts.get("request", {}),
        "pictures": pictures,
        "unfinished": job.state in _UNFINISHED,
        "choice": describe_choice(job) if job.state in _RECOVERABLE else "",
    }


def _list_days(engine: Engine) -> list[dict[str, Any]]:
    spent: dict[str, float] = defaultdict(float)
    for created, usd in engine.ledger.spendings(start_of_day() - 6 * 86400):
        spent[time.strftime("%Y-%m-%d", time.localtime(created))] += usd
    return [{"day": day, "usd": usd} for day, usd in sorted(spent.items(), reverse=True)]


def _find_picture(engine: Engine, job_id: str, position: int) -> Item:
    for item in engine.ledger.items(job_id):
        if item.position == position and item.kind == "picture" and item.file:
            return item
    raise InputError(f"Job {job_id} has no picture {position}.")


def _read(engine: Engine, item: Item) -> bytes:
    data = engine.spool.read(item.file)
    if data is None:
        raise InputError("This picture was cleared away to save space. Klein Recover Job fetches it again.")
    return data
