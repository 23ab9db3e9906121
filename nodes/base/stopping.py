"""Stop, where a node ends well all the same: with what was finished by then.

ComfyUI's Stop is an exception, which loses what a node has made so far. A node that hands on its finished
part instead uses the press up, so two things must be told to others: that no paid work starts in that run any
more, and that the part is not what the node's inputs give, which ComfyUI's cache would take it for.
"""

from __future__ import annotations

from . import seams

get_executing_context = seams.find("comfy_execution.utils:get_executing_context")

_early_ends: dict[str, int] = {}
_stopped_runs: list[str] = []  # the newest only: ComfyUI runs one after another


def note_early_end(node_id: str) -> None:
    """The running node was stopped and hands on what it has."""
    _early_ends[node_id] = count_early_ends(node_id) + 1
    _stopped_runs[:] = [_running_prompt()]


def count_early_ends(node_id: str) -> int:
    """How often a node handed on part results: for its fingerprint, so that the next run computes anew."""
    return _early_ends.get(node_id, 0)


def was_stopped() -> bool:
    """Whether the user pressed Stop in the run that is going on."""
    prompt = _running_prompt()
    return bool(prompt) and prompt in _stopped_runs


def _running_prompt() -> str:
    context = get_executing_context() if get_executing_context else None
    return context.prompt_id if context else ""
