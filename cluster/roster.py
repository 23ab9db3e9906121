"""What is known of the workers in the process that routes: what they say, what they were sent."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .routing import MOST_HELD, Seat, rank_seats


class Roster:
    """One for a process. Serve routes in a thread of its own, so every method holds a lock."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._told: dict[str, Mapping[str, Any]] = {}
        self._held: dict[str, list[str]] = {}
        self._places: dict[str, str] = {}

    def learn(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        """told: by worker, what `Worker.record_routing_stats` gave, empty before it did. Those that are gone
        are forgotten, and what they were sent with them.
        """
        with self._mutex:
            self._told = dict(told)
            self._held = {
                worker: self._held.get(worker) or list(stats.get("held", ()))[-MOST_HELD:]
                for worker, stats in told.items()
            }
            self._places = {ticket: worker for ticket, worker in self._places.items() if worker in told}

    def list(self) -> list[Mapping[str, Any]]:
        """What those workers say that have said something."""
        with self._mutex:
            return [stats for stats in self._told.values() if stats]

    def rank(self, workers: Iterable[str], wanted: str, ticket: str) -> list[str]:
        """The workers, the best for this picture first. It counts as sent there until `note_sent` says where
        it really went: several pictures are routed at once.
        """
        with self._mutex:
            self._places.pop(ticket, None)
            ranks = [
                seat.id for seat in rank_seats([self._seat(worker) for worker in workers], wanted, ticket)
            ]
            if ranks:
                self._places[ticket] = ranks[0]
            return ranks

    def _seat(self, worker: str) -> Seat:
        waiting = sum(place == worker for place in self._places.values())
        tickets = frozenset(self._told.get(worker, {}).get("tickets", ()))
        return Seat(worker, waiting, self.held(worker), tickets)

    def held(self, worker: str) -> Sequence[str]:
        return tuple(self._held.get(worker, ()))

    def note_sent(self, worker: str, wanted: str, ticket: str) -> None:
        with self._mutex:
            self._places[ticket] = worker
            held = self._held.setdefault(worker, [])
            if wanted in held:
                held.remove(wanted)
            held.append(wanted)
            del held[:-MOST_HELD]

    def note_over(self, ticket: str) -> None:
        with self._mutex:
            self._places.pop(ticket, None)


ROSTER = Roster()
