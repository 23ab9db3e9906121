"""What a job is likely to cost: what the last ones of the same kind did cost, else the service's list price.

Both are estimates, and are called so wherever they are shown. Nothing that could be run and billed is ever
sent for the sake of a price.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from .job_request import JobRequest
from .ledger import Job, Ledger

_LOOKED_AT = 9
_SHAPE = ("model", "width", "height", "steps", "references")


def estimate_from_history(ledger: Ledger, request: JobRequest) -> float:
    """USD of a request: the median of the last equal ones, else what its service reckons."""
    shape = {name: request.summary[name] for name in _SHAPE if name in request.summary}
    found = find_usual_cost(ledger, request.service, shape, request.wanted)
    return request.estimate_usd if found is None else found


def find_usual_cost(ledger: Ledger, service: str, shape: Mapping[str, Any], wanted: int) -> float | None:
    """USD that jobs with these facts cost, None where there was none."""
    costs = [
        job.cost_usd
        for job in ledger.list_costs(service)
        if job.cost_usd is not None and job.wanted == wanted and _matches(job, shape)
    ]
    return round(median(costs[:_LOOKED_AT]), 6) if costs else None


def _matches(job: Job, shape: Mapping[str, Any]) -> bool:
    facts = job.facts
    return all(facts.get(name) == value for name, value in shape.items())
