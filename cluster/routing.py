"""Which worker a picture goes to. Pure: what is known of the workers in, an order of them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SWITCH, RELOAD = 0.5, 1.5
"""What it costs to change to another set that a worker holds, and to one that it must read first, in
pictures: so many may wait before a worker rather than that another pays this.
"""
MOST_HELD = 8


def name_set(graph: Mapping[str, Any]) -> str:
    """The checkpoint and LoRA set of a graph of `graph.build_graph`: the same name for the same weights."""
    parts = [graph[node]["inputs"] for node in ("loader", "loras") if node in graph]
    text = json.dumps(
        [{key: value for key, value in part.items() if not isinstance(value, list)} for part in parts],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Seat:
    """A worker as the router sees it. waiting: pictures it was given and has not finished. held: sets it has
    read, the one in use last. tickets: what it draws or has drawn just now.
    """

    id: str
    waiting: int = 0
    held: Sequence[str] = ()
    tickets: frozenset[str] = frozenset()


def rank_seats(seats: Sequence[Seat], wanted: str, ticket: str = "") -> list[Seat]:
    """The best first: the one that draws this very ticket already, then by pictures waiting and by what the
    change of weights costs; among equals the one with the fewest sets, so that sets spread out.
    """

    def cost(seat: Seat) -> tuple[bool, float, int, str]:
        change = 0.0 if seat.held and seat.held[-1] == wanted else SWITCH if wanted in seat.held else RELOAD
        return ticket not in seat.tickets, seat.waiting + change, len(seat.held), seat.id

    return sorted(seats, key=cost)
