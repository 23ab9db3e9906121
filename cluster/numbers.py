"""The workers' numbers in Prometheus' text format, as the front knows them a second later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NUMBERS = (
    ("pictures", "pictures_total", "counter", "Pictures that a worker drew."),
    ("seconds", "drawing_seconds_total", "counter", "Seconds that a worker's pictures took."),
    ("queue", "queue", "gauge", "Pictures that wait at a worker or are drawn by it."),
    ("hits", "model_hits_total", "counter", "Pictures whose checkpoint and LoRAs ComfyUI had read before."),
    ("misses", "model_misses_total", "counter", "Pictures for which it had to read some."),
    ("in_place", "model_in_place_total", "counter", "Pictures of the same weights as the one before."),
    ("references", "references_total", "counter", "References that were sent to a worker."),
)


@dataclass
class Journeys:
    """What of the pictures' time was not with their workers: Serve and the network, a full worker's queue."""

    pictures: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.pictures += 1
        self.seconds += seconds


def describe_workers(told: Iterable[Mapping[str, Any]], on_the_way: Journeys) -> str:
    """told: `Worker.record_routing_stats` of each worker."""
    workers = sorted(told, key=lambda one: str(one.get("name")))
    lines = ["# HELP kleinod_workers Workers that answer.", "# TYPE kleinod_workers gauge"]
    lines.append(f"kleinod_workers {len(workers)}")
    lines += ["# HELP kleinod_way_seconds Time of pictures between the front and their workers."]
    lines += ["# TYPE kleinod_way_seconds summary", f"kleinod_way_seconds_sum {round(on_the_way.seconds, 4)}"]
    lines.append(f"kleinod_way_seconds_count {on_the_way.pictures}")
    for key, name, kind, words in _NUMBERS:
        lines += [f"# HELP kleinod_worker_{name} {words}", f"# TYPE kleinod_worker_{name} {kind}"]
        for worker in workers:
            lines.append(f'kleinod_worker_{name}{{worker="{worker.get("name")}"}} {worker.get(key, 0)}')
    return "\n".join(lines) + "\n"
