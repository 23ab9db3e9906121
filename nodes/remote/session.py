"""Where the engine meets ComfyUI: its user folder, its interrupt, its progress display.

One engine serves the whole process, or two nodes with the same request could not share one job. It is made
when the first remote node runs or the settings panel asks, never at import.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path

import folder_paths
import torch
from comfy.model_management import InterruptProcessingException, processing_interrupted
from comfy_api.v0_0_2 import ComfyAPI, io
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import get_executing_context

from ..base.notices import show
from .engine import Engine
from .flight import Order, Outcome, Ticket
from .limits import read_limits
from .orders import Place
from .results import Delivery, deliver
from .routes import add_routes

logger = logging.getLogger("kleinod.remote")
_GLANCE_SECONDS = 0.1


def find_folder() -> Path:
    """The pack's folder among ComfyUI's protected users: no HTTP route of ComfyUI reaches it."""
    return Path(folder_paths.get_system_user_directory("kleinod"))


@functools.lru_cache(maxsize=1)
def find_engine() -> Engine:
    return Engine(find_folder())


def find_place(node_id: str | None) -> Place:
    """Which node of which run asks, and the user's limits."""
    context = get_executing_context()
    return Place(str(node_id or ""), context.prompt_id if context else "", read_limits(find_folder()))


async def run_order(
    node_id: str | None, prepare: Callable[[Place], Order], policy: str, size: tuple[int, int] = (0, 0)
) -> io.NodeOutput:
    """Place an order, wait for it without blocking anything, and wrap what arrived."""
    place = find_place(node_id)
    outcome = await wait_for(find_engine().launch(lambda: prepare(place)), node_id)
    return wrap(deliver(outcome, policy, size), outcome, node_id)


async def run_recovery(node_id: str | None, job_id: str, policy: str, deadline: float) -> io.NodeOutput:
    """Fetch a job of the ledger."""
    outcome = await wait_for(find_engine().recover(job_id, deadline), node_id)
    return wrap(deliver(outcome, policy), outcome, node_id)


async def wait_for(ticket: Ticket, node_id: str | None) -> Outcome:
    """The outcome of a flight. An interrupt is felt within a tenth of a second; a paid job flies on without
    us.
    """
    loop, landed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(landed.set)
        except RuntimeError:
            pass  # the prompt is over and its loop closed; the result waits in the spool

    ticket.on_done(tell)
    started, shown = time.monotonic(), ""
    try:
        while not landed.is_set():
            if processing_interrupted():
                raise InterruptProcessingException()
            words = f"{ticket.status.words} ({time.monotonic() - started:.0f} s)"
            if words != shown:
                shown = words
                show(words, node_id)
                if node_id:
                    await ComfyAPI().execution.set_progress(ticket.status.progress, 1.0, node_id)
            try:
                await asyncio.wait_for(landed.wait(), _GLANCE_SECONDS)
            except asyncio.TimeoutError:
                continue
        return ticket.result()
    finally:
        ticket.leave()


def register_routes() -> None:
    """Put the settings panel's routes on ComfyUI's server, if there is one."""
    from comfy.cli_args import args
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        add_routes(server.routes, find_engine, find_folder, lambda: args.enable_cors_header == "*")


def wrap(delivery: Delivery, outcome: Outcome, node_id: str | None) -> io.NodeOutput:
    """IMAGE list (one batch for each size), seeds, cost, account. Nothing to show stops that branch,
    quietly.
    """
    if delivery.warning:
        logger.warning("Job %s: %s", outcome.job.id, delivery.warning)
    show(summarise(delivery, outcome), node_id)
    if not delivery.batches:
        return io.NodeOutput(
            [ExecutionBlocker(None)], [ExecutionBlocker(None)], delivery.cost_usd, delivery.info
        )
    images = [torch.from_numpy(batch) for batch in delivery.batches]
    return io.NodeOutput(images, list(delivery.seeds), delivery.cost_usd, delivery.info)


def summarise(delivery: Delivery, outcome: Outcome) -> str:
    count = sum(len(batch) for batch in delivery.batches)
    if outcome.job.state == "priced":
        return f"Price: ${delivery.cost_usd:.4f} (nothing was sent)"
    paid = f"${delivery.cost_usd:.4f}" if outcome.paid_now else "already paid"
    about = "" if outcome.cost_usd is not None or not outcome.paid_now else "about "
    words = f"{count} picture{'' if count == 1 else 's'}, {about}{paid}, {outcome.seconds:.1f} s"
    return f"{words}. {delivery.warning}" if delivery.warning else words
