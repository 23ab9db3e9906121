"""What a remote job will cost and take, told before Run: list prices and the times of the ledger's jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from ..base.errors import InputError
from .bfl import BflRequest
from .engine import Engine
from .runware import RunwareRequest

_JOBS_LOOKED_AT = 9
# Slower than any deadline a node offers: such a job was fetched later, its time says nothing.
_LONGEST_SECONDS = 1800.0


def estimate(engine: Engine, service: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """`{"usd": price, "seconds": median of the last jobs of this service or None, "jobs": how many}`.

    `fields`: the node's widgets as texts (a query string); `references` is their number. ValueError names
    the widget that the service would refuse.
    """
    makers: dict[str, Callable[[Mapping[str, str]], float]] = {"runware": _price_runware, "bfl": _price_bfl}
    if service not in makers:
        raise InputError(f"service must be one of {', '.join(makers)}; got '{service}'.")
    times = _list_times(engine, service)
    return {
        "usd": makers[service](fields),
        "seconds": median(times) if times else None,
        "jobs": len(times),
    }


def _price_runware(fields: Mapping[str, str]) -> float:
    request = RunwareRequest(
        "price",
        width=_read_int(fields, "width", 1024),
        height=_read_int(fields, "height", 1024),
        steps=_read_int(fields, "steps", 28),
        number_results=_read_int(fields, "number_results", 1),
        references=["reference"] * _read_int(fields, "references", 0),
    )
    return request.estimate_usd()


def _price_bfl(fields: Mapping[str, str]) -> float:
    request = BflRequest(
        "price",
        width=_read_int(fields, "width", 0),
        height=_read_int(fields, "height", 0),
        endpoint=fields.get("endpoint", BflRequest.endpoint),
        images=["reference"] * _read_int(fields, "references", 0),
    )
    return request.estimate_usd()


def _read_int(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name, "")
    if not text:
        return default
    try:
        return min(int(text), 10**9)
    except ValueError:
        raise InputError(f"{name} must be a whole number; got '{text[:40]}'.") from None


def _list_times(engine: Engine, service: str) -> list[float]:
    jobs = [job for job in engine.ledger.recent(100, ("saved",)) if job.service == service]
    times = [job.updated - job.created for job in jobs]
    return [seconds for seconds in times if seconds < _LONGEST_SECONDS][:_JOBS_LOOKED_AT]
