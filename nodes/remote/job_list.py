"""The account book as the job panel shows it: recent jobs, their pictures, what each day cost.

Source pictures are in no answer, and prompts in none but their own: the ledger does not hold them, a prompt
lies beside the job's pictures.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from PIL import Image

from ..base.errors import InputError
from ..base.sentences import say
from .engine import Engine
from .errors import JobFailed
from .following import order_by_seed
from .images import decode, encode, sniff
from .job_request import ReceivedImage
from .ledger import Item, Job, start_of_day
from .services import is_own, name_service

THUMBNAIL_SIDE = 192
Save = Callable[[list[bytes], list[str]], list[dict[str, str]]]
_RECOVERY_SECONDS = 120.0
NO_JOB = "no job yet: refresh after one was sent"
_RECOVERABLE = ("submitting", "accepted", "saved", "moderated", "unknown")
_UNFINISHED = ("submitting", "accepted")


def list_jobs(engine: Engine, limit: int = 100) -> dict[str, Any]:
    """`{"jobs": [...], "spent_today_usd": USD, "spent_by_day": [{"day": "2026-11-21", "usd": 0.01}, ...],
    "note": ...}`. note: a sentence where a damaged ledger was set aside.

    Unfinished jobs first, then the newest; days with spending among the last seven, the newest first.
    """
    return {
        "jobs": [_describe(engine, job) for job in engine.ledger.recent(limit)],
        "spent_today_usd": engine.ledger.spent_since(start_of_day()),
        "spent_by_day": _list_days(engine),
        "note": engine.ledger.note,
    }


def list_choices(engine: Engine) -> list[str]:
    """One line for each job that can be fetched; the id at its end is what counts. A line that says so where
    there is none: over an empty list the page would say "Loading..." for ever."""
    return [describe_choice(job) for job in engine.ledger.recent(100, _RECOVERABLE)] or [NO_JOB]


def describe_choice(job: Job) -> str:
    facts = job.facts
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


def read_prompt(engine: Engine, job_id: str) -> dict[str, str]:
    """`{"prompt": ...}` of a job, "" where it was cleared away. ValueError if there is no such job."""
    return {"prompt": engine.store.read_prompt(engine.ledger.read(job_id).id)}


def recover_to_files(engine: Engine, job_id: str, save: Save) -> dict[str, Any]:
    """Fetch a job at once, from the store or the service, and put its pictures into ComfyUI's output folder.

    `{"files": [...], "note": ...}`. save: takes files and their names, and says where they are. Raises what
    fetching raises; nothing is ever sent to be billed.
    """
    handle = engine.recover(job_id, _RECOVERY_SECONDS)
    try:
        result = handle.result()
    finally:
        handle.leave()
    if result.job is None or not any(image.pixels is not None for image in result.images):
        reasons = "; ".join(dict.fromkeys(image.message for image in result.images if image.message))
        raise JobFailed(say("There is no picture to fetch for this job: %1.", reasons or "none came"))
    data, names = [], []
    for number, image in enumerate(result.images):
        if image.pixels is not None:
            file = _read_kept(engine, job_id, image) or encode(image.pixels)
            data.append(file)
            ending = {"JPEG": "jpg", "WEBP": "webp"}.get(sniff(file) or "", "png")
            names.append(f"{result.service}_{job_id[:8]}_{number + 1:02}.{ending}")
    files = save(data, names)
    engine.deliver(result)
    return {"files": files, "note": result.note}


def _read_kept(engine: Engine, job_id: str, image: ReceivedImage) -> bytes | None:
    """The file as the service sent it, where it is in the store."""
    kept = [item for item in engine.ledger.items(job_id) if item.item_id == image.item_id and item.file]
    return engine.store.read(kept[0].file) if kept else None


def _describe(engine: Engine, job: Job) -> dict[str, Any]:
    shown = ("id", "service", "state", "profile", "wanted", "estimate_usd", "cost_usd", "message", "created")
    facts = job.facts
    workers = engine.ledger.workers(job.id)
    pictures = [
        {
            "position": item.position,
            "width": item.width,
            "height": item.height,
            "seed": item.seed,
            "worker": workers.get(item.item_id, ""),
        }
        for item in order_by_seed(tuple(engine.ledger.items(job.id)))
        if item.kind == "picture" and item.file
    ]
    return {name: getattr(job, name) for name in shown} | {
        "title": f"{name_service(job.service)} {job.profile}"
        if is_own(job.service)
        else name_service(job.service),
        "model": facts.get("model", ""),
        "size": [facts.get("width"), facts.get("height")],
        "request": facts.get("request", {}),
        "pictures": pictures,
        "seed": facts.get("seed"),
        "unfinished": job.state in _UNFINISHED,
        "waited_for": engine.is_waited_for(job),
        "unsent": engine.ledger.is_unsent(job.id),
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
    raise InputError(say("Job %1 has no picture %2.", job_id, position))


def _read(engine: Engine, item: Item) -> bytes:
    data = engine.store.read(item.file)
    if data is None:
        raise InputError(
            say(
                "This picture was cleared away to save space. Recover in the Klein Jobs panel fetches it "
                "again."
            )
        )
    return data
