"""Blocks that ComfyUI runs as captured CUDA graphs: on a replay no cache and no hook of ours takes part.

As of 0.33 ComfyUI captures blocks of other models (text decoders, music) and not FLUX.2's. Should it begin
to, what would be frozen has to be off. Each of these is enough:

before a run   the code of the network's loop hands blocks over to be captured, or the model carries what
               ComfyUI's dynamic memory gives to blocks that may be (`captures_blocks`)
in a run       a block is being captured at this very moment (`is_capturing`), whatever the code is called
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from . import seams
from .sentences import Sentence, say

# In the code of a loop, each set of words by itself: ComfyUI's queue told to capture; its queue given the
# call of the block to make; PyTorch's own ways.
_TELLING = (
    {"enable_graph"},
    {"prefetch_queue_pop", "core"},
    {"CUDAGraph"},
    {"make_graphed_callables"},
)


def captures_blocks(network: Any) -> bool:
    """Whether ComfyUI may capture the blocks of a diffusion model when it runs it."""
    if find_switch():
        return False
    return _carries_units(network) or any(
        telling <= words for words in _words_of_class(type(network)) for telling in _TELLING
    )


def explain(feature: seams.Feature) -> Sentence:
    """That a feature is off where blocks are captured, and how to have it back."""
    return say(
        "%1 is off: this ComfyUI runs the model's blocks as recorded CUDA graphs, "
        "in which nothing can be skipped or added. "
        "Start ComfyUI with --disable-cuda-graphs to have it back.",
        feature.title,
    )


def find_switch() -> bool:
    """Whether ComfyUI was started with --disable-cuda-graphs."""
    return bool(seams.find("comfy.cli_args:args.disable_cuda_graphs"))


def is_capturing() -> bool:
    """Whether what is called now is being captured rather than run."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _carries_units(network: Any) -> bool:
    """What ComfyUI's ModelPatcherDynamic gives to modules that it may capture, once it has loaded them."""
    if getattr(network, "graph_dynamic_vbar_blocks", False):
        return True
    modules = network.modules() if hasattr(network, "modules") else ()
    return any(hasattr(module, "_v_block") for module in modules)


def _words_of_class(kind: type) -> Iterator[set[str]]:
    """The words of every function a class has of ComfyUI's, and of those of the same file that these call."""
    waiting = [
        value
        for base in kind.__mro__
        if not base.__module__.startswith(("torch.", "builtins"))
        for value in vars(base).values()
    ]
    seen: set[Any] = set()
    while waiting:
        found = waiting.pop()
        function = inspect.unwrap(found) if callable(found) else None
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        words = seams.words_of(function.__code__)
        yield words
        space = function.__globals__
        near = [space[word] for word in words if isinstance(space.get(word), FunctionType)]
        waiting += [one for one in near if one.__module__ == function.__module__]
