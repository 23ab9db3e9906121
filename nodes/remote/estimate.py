"""What a remote job will cost, take and send, told before Run: prices and times of the ledger's jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from statistics import median
from typing import Any

from ..base.errors import InputError
from ..base.sentences import say
from .engine import Engine
from .images import UPLOAD_FORMATS, estimate_bytes
from .prices import find_usual_cost
from .services import find_service

_JOBS_LOOKED_AT = 9
_MAX_REFERENCES = 64
_NUMBER = re.compile(r"-?\d{1,9}")
_UNKNOWN_PIXELS = 2**20
_MAX_UPLOAD_PIXELS = 4 * 2**20


def estimate(engine: Engine, service: str, widgets: Mapping[str, str]) -> dict[str, Any]:
    """`{"server": the user's own that the profile names or "", "usd": price, "seconds": median of the last
    jobs of this service or None, "jobs": how many, "upload_bytes": about what its source pictures add}`.

    widgets: those of the node as texts (a query string); `references` is the number of source pictures,
    `pixels` their sizes where the page knows them ("1024x768,640x480"). InputError names the widget that the
    service would refuse.
    """
    endpoint = engine.accounts.servers.place(service, widgets.get("profile", ""))
    service = service if endpoint is None else endpoint.service.name
    known = find_service(service)
    given = {name: _read(name, text) for name, text in widgets.items() if text and name not in _OWN}
    references = _read_count(widgets.get("references", ""))
    usd = known.estimate_usd(given, references)
    shape = {
        ("model" if name == "endpoint" else name): value
        for name, value in given.items()
        if name in ("model", "endpoint", "width", "height", "steps")
    }
    usual = find_usual_cost(
        engine.ledger, service, shape | {"references": references}, int(given.get("number_results", 1))
    )
    times = engine.ledger.list_seconds(service, _JOBS_LOOKED_AT)
    return {
        "server": "" if endpoint is None else widgets["profile"],
        "usd": usd if usual is None else usual,
        "seconds": median(times) if times else None,
        "jobs": len(times),
        "upload_bytes": _estimate_upload(widgets, references),
    }


_OWN = ("references", "pixels", "upload_format", "profile")


def _read(name: str, text: str) -> Any:
    if not re.fullmatch(r"[-+.\d]\S*", text) and not name.endswith(("width", "height", "steps", "results")):
        return text
    if not _NUMBER.fullmatch(text):
        raise InputError(say("%1 is '%2', but must be a whole number.", name, text[:40]))
    return int(text)


def _read_count(text: str) -> int:
    count = _read("references", text) if text else 0
    if not isinstance(count, int) or not 0 <= count <= _MAX_REFERENCES:
        raise InputError(
            say("references is '%1', but must be from 0 to %2 input images.", text[:40], _MAX_REFERENCES)
        )
    return count


def _estimate_upload(widgets: Mapping[str, str], references: int) -> int:
    form = widgets.get("upload_format", "")
    form = form if form in UPLOAD_FORMATS else UPLOAD_FORMATS[0]
    sizes = [
        min(int(width) * int(height), _MAX_UPLOAD_PIXELS)
        for width, height in re.findall(r"(\d{1,5})x(\d{1,5})", widgets.get("pixels", "")[:1000])
    ]
    unknown = max(0, references - len(sizes))
    return sum(estimate_bytes(pixels, form) for pixels in [*sizes[:references], *[_UNKNOWN_PIXELS] * unknown])
