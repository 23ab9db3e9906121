"""What a node says on the page: a line under it, and one sentence when it fails.

ComfyUI frames a failed node red and keeps the reason two clicks away, in a report. Here it stands on the
node. Where memory ran out, PyTorch's words help nobody: the error keeps its kind, so that ComfyUI frees its
models as always, and gets a sentence that names what to change.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import seams
from .errors import ArtistError
from .input_checks import check_inputs
from .sentences import Sentence, say
from .sockets import list_sockets

is_oom = seams.find("comfy.model_management:is_oom")

get_executing_context = seams.find("comfy_execution.utils:get_executing_context")

logger = logging.getLogger("kleinod.notices")

_WITHOUT_ADVICE = say("Out of memory. Close other programs that use it, or make the picture smaller.")
# PyTorch's allocators for the computer's own memory and for Apple's raise no type of their own.
_WORDS = ("can't allocate memory", "not enough memory", "backend out of memory")

# Nodes whose complaint still stands on the page: the page itself never takes one back.
_complaining: set[str] = set()


def show(text: Sentence, node_id: str | None = None) -> None:
    """Write `text` under a node, by default the running one; without a server there is nothing to do."""
    if seams.missing(seams.PAGE):
        logger.info(text)
        return
    server = seams.find_server()
    node_id = node_id or _running_node()
    if server is not None and node_id:
        # Nodes 2.0 reads Markdown, where only two spaces keep a line apart from the next.
        server.send_progress_text(text.replace("\n", "  \n"), node_id)


def warn(text: Sentence, node_id: str | None = None) -> None:
    """`show` until the node runs again: then the text goes, if nothing takes its place."""
    node_id = node_id or _running_node()
    if node_id:
        _complaining.add(node_id)
        show(text, node_id)


def show_status(hidden: Any, text: Sentence) -> None:
    """Write `text` under the node whose hidden inputs these are; without a server (None) there is none."""
    if hidden is not None and hidden.unique_id is not None:
        show(text, hidden.unique_id)


def reports_errors(advise: Callable[..., Sentence] | None = None) -> Callable[[Callable], Callable]:
    """For `execute` of a node: what stops it is said on the node.

    advise: takes the node's inputs and gives the sentence for a lack of memory.
    """

    def decorate(execute: Callable) -> Callable:
        signature = inspect.signature(execute)

        def sentence(arguments: tuple, inputs: dict[str, Any]) -> Sentence:
            if advise is None:
                return _WITHOUT_ADVICE
            bound = signature.bind(*arguments, **inputs)
            bound.apply_defaults()
            given = dict(list(bound.arguments.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is parameter.VAR_KEYWORD:
                    given |= given.pop(name, {})
            return advise(**given)

        if inspect.iscoroutinefunction(execute):

            @functools.wraps(execute)
            async def speaking(*arguments: Any, **inputs: Any) -> Any:
                with _saying_why(lambda: sentence(arguments, inputs)):
                    check_inputs(list_sockets(arguments[0]), inputs)
                    return await execute(*arguments, **inputs)

        else:

            @functools.wraps(execute)
            def speaking(*arguments: Any, **inputs: Any) -> Any:
                with _saying_why(lambda: sentence(arguments, inputs)):
                    check_inputs(list_sockets(arguments[0]), inputs)
                    return execute(*arguments, **inputs)

        return speaking

    return decorate


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the graphics card's memory or the computer's own ran out."""
    if isinstance(error, MemoryError) or _is_of_card(error):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def _is_of_card(error: BaseException) -> bool:
    return bool(is_oom and is_oom(error))


@contextmanager
def _saying_why(explain_memory: Callable[[], Sentence]) -> Iterator[None]:
    node_id = _running_node()
    if node_id in _complaining:
        _complaining.discard(node_id)
        show(Sentence(" "), node_id)  # the page ignores an empty text
    try:
        yield
    except ArtistError as error:
        warn(Sentence(str(error)), node_id)
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sentence = explain_memory()
        logger.info("Said on the node: %s", sentence)
        warn(sentence, node_id)
        kind = torch.OutOfMemoryError if _is_of_card(error) else MemoryError
        raise kind(sentence) from error


def _running_node() -> str | None:
    context = get_executing_context() if get_executing_context else None
    return None if context is None else context.node_id
