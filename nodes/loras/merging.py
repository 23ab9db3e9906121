"""What nodes that merge or save a MODEL see of the rows that bypass its weights.

Such nodes read weights: core's merges take `get_key_patches` of one model into `add_patches` of another, and
save nodes take `state_dict_for_saving`. Rows that act on every step are given to them as the weight patches
they could have been. Rows with a stage cannot be weights: where a merge scales the model they sit on they are
scaled alike, elsewhere the node that loses them says so.

A clone of ours answers these three calls itself, by methods of the one object; no class of ComfyUI is
touched, and an ON_CLONE callback hands them on to further clones.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..base import seams
from ..base.notices import show
from ..base.sentences import Sentence, say
from .bypass import BypassLoras, Slot
from .patches import KEY, list_patches, weight_key

comfy = seams.modules("comfy.model_management")

CallbacksMP = seams.find("comfy.patcher_extension:CallbacksMP")
WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

logger = logging.getLogger("kleinod.loras")

BYPASS = "kleinod_bypass_loras"


def add_bypass(patcher: Any, loras: BypassLoras) -> None:
    """Let `loras` run beside the weights of `patcher`, a clone of the caller's own."""
    _set_bypass(patcher, (*list_bypass(patcher), loras))
    _answer_for_weights(patcher)
    if not patcher.get_callbacks(CallbacksMP.ON_CLONE, KEY):
        patcher.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, _hand_on)


def list_bypass(patcher: Any) -> tuple[BypassLoras, ...]:
    """The bypassing stacks of a MODEL, in the order they were put on it."""
    return patcher.get_attachment(BYPASS) or ()


def fold(patcher: Any, scales: Mapping[str, float] | None = None) -> None:
    """Put the rows that act on every step into the weights of `patcher`, in place.

    scales: ComfyUI's keys of weights about to be multiplied, with the factors, for rows with a stage.
    """
    stacks = list_bypass(patcher)
    names = patcher.model.state_dict().keys()
    staged = []
    for loras in stacks:
        patches = dict(list_patches(loras.whole_runs, names))
        if patches:
            type(patcher).add_patches(patcher, patches)
        rest = loras.staged(_scale_slots(loras, scales or {}, names))
        staged += [rest] if rest is not None else []
    _set_bypass(patcher, tuple(staged))


def _scale_slots(loras: BypassLoras, scales: Mapping[str, float], names: Any) -> dict[Slot, float]:
    slots: Iterable[Slot] = (slot for group in loras.groups.values() for slot in group)
    keys = {slot: weight_key(slot.module, names) for slot in slots}
    return {slot: scales[key] for slot, key in keys.items() if key in scales}


def _set_bypass(patcher: Any, stacks: tuple[BypassLoras, ...]) -> None:
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.APPLY_MODEL):
        patcher.remove_wrappers_with_key(kind, KEY)
    for loras in stacks:
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, loras.sample)
        patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, loras.apply)
    patcher.set_attachments(BYPASS, stacks)


def _hand_on(original: Any, clone: Any) -> None:
    """ON_CLONE."""
    if list_bypass(clone):
        _answer_for_weights(clone)


def _answer_for_weights(patcher: Any) -> None:
    # Not the object itself: it would hold itself alive until Python looks for circles.
    find: Callable[[], Any] = weakref.ref(patcher)

    def get_key_patches(filter_prefix: str | None = None) -> dict[str, list[Any]]:
        me = find()
        found = type(me).get_key_patches(me, filter_prefix)
        for loras in list_bypass(me):
            for key, adapter in list_patches(loras.whole_runs, me.model.state_dict().keys()):
                name, offset = key if isinstance(key, tuple) else (key, None)
                if name in found:
                    found[name] = [*found[name], (1.0, adapter, 1.0, offset, None)]
        # Merging nodes ask for the diffusion model's weights; hooks ask for all, and lose nothing.
        if filter_prefix is not None:
            _say_what_is_lost(me, say("the merged weights"))
        return found

    def add_patches(
        patches: Mapping[Any, Any], strength_patch: float = 1.0, strength_model: float = 1.0
    ) -> Any:
        me = find()
        # A list is another model's weight with its patches: a merge, also where ours stays at its strength.
        if strength_model != 1.0 or any(isinstance(patch, list) for patch in patches.values()):
            keys = [key if isinstance(key, str) else key[0] for key in patches]
            fold(me, dict.fromkeys(keys, strength_model))
        return type(me).add_patches(me, patches, strength_patch, strength_model)

    def state_dict_for_saving(*states: Any, **named: Any) -> Any:
        me = find()
        _say_what_is_lost(me, say("the saved file"))
        weights = me.clone()
        fold(weights)
        comfy.model_management.load_models_gpu([weights])
        return type(weights).state_dict_for_saving(weights, *states, **named)

    patcher.get_key_patches = get_key_patches
    patcher.add_patches = add_patches
    patcher.state_dict_for_saving = state_dict_for_saving


def _say_what_is_lost(patcher: Any, place: Sentence) -> None:
    if any(loras.boundaries for loras in list_bypass(patcher)):
        sentence = say(
            "Warning: LoRA rows with a stage act while sampling only, so they are not in %1. Give them no "
            "stage (both) to have them there.",
            place,
        )
        logger.warning(sentence)
        show(sentence)
