"""Where the engine meets ComfyUI: its user folder, its interrupt, its progress display, its output folder.

One engine serves the whole process, or two nodes with the same request could not share one job. It is made
when the first remote node runs or the settings panel asks, never at import.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from comfy_api.v0_0_2 import ComfyAPI, io

from ..base import seams
from ..base.doors import Doors
from ..base.errors import InputError
from ..base.notices import show, warn
from ..base.sentences import Sentence, join, say
from ..base.stopping import was_stopped
from .engine import Engine
from .job_request import ON_ITS_WAY, WITH_SERVICE, JobHandle, JobResult, RunContext
from .keys import KeyStore
from .ledger import Job, format_usd
from .limits import read_limits
from .profiles import KEY_AS_PROFILE, check_profile
from .results import Delivery, deliver
from .routes import add_routes
from .services import find_service, is_own

folder_paths = seams.find("folder_paths")

InterruptProcessingException = seams.find("comfy.model_management:InterruptProcessingException")
processing_interrupted = seams.find("comfy.model_management:processing_interrupted")
ExecutionBlocker = seams.find("comfy_execution.graph_utils:ExecutionBlocker")
get_executing_context = seams.find("comfy_execution.utils:get_executing_context")

logger = logging.getLogger("kleinod.remote")
_GLANCE_SECONDS = 0.1
# What a node says of a job that an interrupt does not take back.
_INTERRUPTED = {
    ON_ITS_WAY: say(
        "Interrupted while the request was on its way. If the service has it, it goes on and is paid: the "
        "Klein Jobs panel says so. Queue again, or use Recover in the Klein Jobs panel; neither pays again."
    ),
    WITH_SERVICE: say(
        "Interrupted, but the service has the job: it goes on and is paid. Queue again, or use Recover in "
        "the Klein Jobs panel; neither pays again."
    ),
}


def find_folder() -> Path:
    """The pack's folder among ComfyUI's protected users: no HTTP route of ComfyUI reaches it."""
    return Path(folder_paths.get_system_user_directory("kleinod"))


@functools.lru_cache(maxsize=1)
def find_engine() -> Engine:
    args = seams.find("comfy.cli_args:args")
    return Engine(find_folder(), own_port=args.port if seams.find_server() else 0)


def find_context(node_id: str | None) -> RunContext:
    """Which node of which run asks, and the user's limits."""
    context = get_executing_context()
    return RunContext(str(node_id or ""), context.prompt_id if context else "", read_limits(find_folder()))


def judge_profile(profile: object) -> bool | str:
    """At queue time, before a prompt is in any history: True, or why this is no name of a profile."""
    if profile is None:  # linked: known when it runs
        return True
    try:
        name = check_profile(profile)
    except InputError as error:
        return str(error)
    return KEY_AS_PROFILE if KeyStore(find_folder()).holds(name) else True


async def run_job(node_id: str | None, service: str, inputs: Mapping[str, Any]) -> io.NodeOutput:
    """Ask a service for what a node's inputs say, wait without blocking anything, wrap what arrived."""
    seams.require(seams.REMOTE)
    if was_stopped():
        show(say("Nothing was sent: this run was stopped."), node_id)
        raise InterruptProcessingException()
    context = find_context(node_id)
    handle = find_engine().launch(lambda: find_service(service).make_request(context, inputs))
    result = await wait_for(handle, node_id)
    size = inputs.get("width", 0), inputs.get("height", 0)
    return wrap(deliver(result, inputs["moderation"], size), result, node_id)


async def run_recovery(node_id: str | None, job_id: str, policy: str, deadline: float) -> io.NodeOutput:
    """Fetch a job of the ledger."""
    result = await wait_for(find_engine().recover(job_id, deadline), node_id)
    return wrap(deliver(result, policy), result, node_id)


async def wait_for(handle: JobHandle, node_id: str | None) -> JobResult:
    """The result of a job. An interrupt is felt within a tenth of a second; a paid job goes on without us."""
    future = asyncio.wrap_future(handle)
    started, shown = time.monotonic(), Sentence("")
    try:
        while not future.done():
            if processing_interrupted():
                if handle.reach in _INTERRUPTED:
                    warn(_INTERRUPTED[handle.reach], node_id)
                raise InterruptProcessingException()
            words = Sentence(f"{handle.progress.words} ({time.monotonic() - started:.0f} s)")
            if words != shown:
                shown = words
                show(words, node_id)
                if node_id:
                    await ComfyAPI().execution.set_progress(handle.progress.share, 1.0, node_id)
            await asyncio.wait([future], timeout=_GLANCE_SECONDS)
        result = future.result()
        find_engine().deliver(result)
        return result
    finally:
        # Left alone, the end of a job that nobody waits for would be reported as an error nobody saw.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        handle.leave()


def save_to_output(images: list[bytes], names: list[str]) -> list[dict[str, str]]:
    """Files in ComfyUI's output folder as `{"filename", "subfolder", "type"}`, listed among its assets."""
    written = []
    folder = Path(folder_paths.get_output_directory()) / "Klein Jobs"
    folder.mkdir(parents=True, exist_ok=True)
    for data, name in zip(images, names, strict=True):
        file = folder / name
        if not (file.is_file() and file.read_bytes() == data):
            file.write_bytes(data)
        written.append(file)
    _register_assets(written)
    return [{"filename": file.name, "subfolder": folder.name, "type": "output"} for file in written]


def _register_assets(files: list[Path]) -> None:
    """ComfyUI finds new files by itself when it next looks; told, it shows them at once."""
    try:
        from app.assets.services import register_output_files  # type: ignore[import-not-found,unused-ignore]

        register_output_files([str(file) for file in files])
    except Exception as error:  # noqa: BLE001 - another ComfyUI, or its database is off
        logger.debug("ComfyUI's assets were not told of new files (%s).", type(error).__name__)


def register_routes(doors: Doors) -> None:
    """Put the settings panel's routes on ComfyUI's server, if there is one."""
    server = seams.find_server()
    if server is not None:
        add_routes(server.routes, doors, find_engine, find_folder, save_to_output)


def wrap(delivery: Delivery, result: JobResult, node_id: str | None) -> io.NodeOutput:
    """IMAGE list (one batch for each size), seeds, cost, account. Nothing to show stops that branch,
    quietly.
    """
    if delivery.warning and result.job is not None:
        logger.warning("Job %s: %s", result.job.id, delivery.warning)
    show(summarise(delivery, result), node_id)
    if not delivery.batches:
        return io.NodeOutput(
            [ExecutionBlocker(None)], [ExecutionBlocker(None)], delivery.cost_usd, delivery.info
        )
    images = [torch.from_numpy(batch) for batch in delivery.batches]
    return io.NodeOutput(images, list(delivery.seeds), delivery.cost_usd, delivery.info)


def tell_place(job: Job) -> str:
    """Where a job was drawn: the host, and the name the user gave to a server of their own."""
    host = urlsplit(job.base).netloc
    return f"{job.profile} ({host})" if is_own(job.service) else host


def summarise(delivery: Delivery, result: JobResult) -> Sentence:
    """One line under the node."""
    if result.job is None:
        words = say("Price: about %1 (an estimate; nothing was sent)", format_usd(delivery.cost_usd))
    else:
        count = sum(len(batch) for batch in delivery.batches)
        own = is_own(result.service) and result.cost_usd is None
        paid = Sentence(format_usd(delivery.cost_usd))
        if not result.paid_now:
            paid = say("made before") if own else say("already paid")
        elif own:
            paid = say("free")
        elif result.cost_usd is None:
            paid = say("about %1", paid)
        pictures = say("1 picture") if count == 1 else say("%1 pictures", count)
        by = say("by %1", tell_place(result.job))
        words = join(", ", [pictures, paid, Sentence(f"{result.seconds:.1f} s"), by])
    return Sentence(f"{words}. {delivery.warning}") if delivery.warning else words
