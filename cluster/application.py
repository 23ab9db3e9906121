"""The application for Serve: what `run.py cluster` starts, and `serve deploy cluster/serve.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from .front import Front
from .options import read_options
from .router import HolderRouter
from .worker import Worker

NAME = "kleinod"
AHEAD = 2
"""Pictures on their way for each worker: one is drawn, the next is there when it is done."""
ACCEPTED = 4
"""Pictures a worker takes: more than AHEAD, so that a set's pictures may gather where its weights are."""


def build(given: dict[str, Any]) -> serve.Application:
    """given: values of `options.OPTIONS`, as YAML or `key=value` spell them.

    folder: of the jobs. workers: how many, or the fewest where most_workers is larger. gpus_per_worker: 0
    draws on the CPU. head: whether the front stays on the head's machine, where its folder is.
    """
    options = read_options(given)
    most = max(options["workers"], options["most_workers"])
    gpus = options["gpus_per_worker"]
    scale: dict[str, Any] = {"num_replicas": options["workers"]}
    if most > options["workers"]:
        scale = {
            "num_replicas": "auto",
            "autoscaling_config": {
                "min_replicas": options["workers"], "max_replicas": most, "target_ongoing_requests": AHEAD,
                "upscale_delay_s": 5, "downscale_delay_s": 120,
            },
        }  # fmt: skip
    worker = serve.deployment(Worker).options(
        name="Worker",
        max_ongoing_requests=ACCEPTED,
        ray_actor_options={"num_cpus": options["cpus_per_worker"], "num_gpus": gpus},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=10,
        request_router_config=RequestRouterConfig(
            request_router_class=HolderRouter, request_routing_stats_period_s=1.0, max_backoff_s=0.1
        ),
        **scale,
    )
    workers: DeploymentHandle = worker.bind(
        "gpu" if gpus else "cpu", options["threads"], options["hang_seconds"], options["silent_seconds"]
    )
    place = {"resources": {"node:__internal_head__": 0.001}} if options["head"] else {}
    front = serve.deployment(Front).options(
        name="Front",
        num_replicas=1,
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 0, **place},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=1,
    )
    return front.bind(
        workers,
        str(Path(options["folder"]).expanduser().resolve()),
        AHEAD * most,
        options["remote"],
        options["stand_in"],
        options["silent_seconds"] + options["hang_seconds"],
    )
