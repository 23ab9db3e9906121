"""Serve's request router for the workers: it asks `roster.py`, and tells it.

Serve ships this module by value: what it shares with the rest of the process stands in `roster.py`, and is
named through that module.
"""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from . import roster


class HolderRouter(RequestRouter):
    """Requests carry `wanted` and `ticket` as keyword arguments; one without may go anywhere."""

    def update_replicas(self, replicas: list[RunningReplica]) -> Any:
        done = super().update_replicas(replicas)
        told = {replica.replica_id.unique_id: replica.routing_stats or {} for replica in replicas}
        roster.ROSTER.learn(told)
        return done

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is None or "ticket" not in pending_request.kwargs:
            return [list(candidate_replicas)]
        # Where all are full, wait before the next look.
        pending_request.routing_context.should_backoff = True
        asked = pending_request.kwargs
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        ranks = roster.ROSTER.rank(by_name, asked["wanted"], asked["ticket"])
        return [[by_name[name]] for name in ranks]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        asked = pending_request.kwargs
        if "ticket" in asked:
            roster.ROSTER.note_sent(replica_id.unique_id, asked["wanted"], asked["ticket"])
