"""Plain runs of Klein Sampler that teach acceleration, where the user has said that they may.

A run is watched through what the solver shows after every step, so the model is the one it would be without.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..acceleration.attached import AROUND_GUIDANCE, flatten
from ..acceleration.fingerprint import read_fingerprint
from ..acceleration.learning import FEWEST_STEPS, MOST_STEPS, Kind, Recorder
from ..acceleration.learning_files import read_salt, teach
from ..acceleration.patch import computes_roughly, find_mu, read_model
from ..acceleration.solvers import name_solver, read_options
from ..base.sentences import Sentence
from ..model.nano import READS_OWN_TEXT

logger = logging.getLogger("kleinod.sampling")

# Wrappers that leave a model's answers as they are: klein-nano's reader of its prompt, core's TorchCompile.
_HARMLESS = {READS_OWN_TEXT, "torch.compile"}
# What makes a condition count for a part of the run or of the picture only.
_PARTIAL = ("start_percent", "end_percent", "timestep_start", "hooks", "control", "area", "mask")


class PlainRun:
    """One run being watched. Nothing that goes wrong here reaches the run: then it teaches nothing."""

    def __init__(self, kind: Kind, conditioning: Any) -> None:
        self._kind = kind
        self._conditioning = conditioning
        self._recorder: Recorder | None = Recorder(kind.sigmas)

    def note(self, step: int, x: Tensor, denoised: Tensor) -> None:
        """What the model was given and said at `step`."""
        if self._recorder is None:
            return
        try:
            self._recorder.note(step, x, denoised)
        except (RuntimeError, ValueError, AttributeError) as error:  # memory, or a solver of another kind
            self._give_up(error)

    def teach(self) -> list[Sentence]:
        """At the end of a whole run: what it is worth, and a line for the report."""
        recorder, self._recorder = self._recorder, None
        try:
            gram = recorder.read_gram() if recorder is not None else None
            said = teach(self._kind, self._conditioning, gram) if gram is not None else Sentence("")
        except (RuntimeError, ValueError, OSError, AttributeError) as error:
            self._give_up(error)
            return []
        return [said] if said else []

    def _give_up(self, error: Exception) -> None:
        self._recorder = None
        logger.warning("This run teaches acceleration nothing: %s", error)


def watch_plain_run(
    model: Any,
    positive: Any,
    sampler: Any,
    sigmas: Tensor,
    latent: Mapping[str, Any],
    guidance: float,
) -> PlainRun | None:
    """None where runs may not teach, or this one cannot: only Euler's whole runs over an empty latent, all of
    whose steps are of one kind, on a model that its weights alone tell from others.

    model: a ModelPatcher without acceleration, as it will run. sampler: SAMPLER. sigmas `[steps + 1]`.
    """
    if not read_salt():
        return None
    options = read_options(sampler)
    steps = len(sigmas) - 1
    fits = name_solver(sampler) == "sample_euler" and not options.get("s_churn")
    fits = fits and FEWEST_STEPS <= steps <= MOST_STEPS and float(sigmas[-1]) == 0
    fits = fits and "noise_mask" not in latent and not bool(latent["samples"].any())
    fits = fits and not any(extra.get(name) for _, extra in positive for name in _PARTIAL)
    fingerprint = read_fingerprint(model) if fits and is_plain(model) else ""
    if not fingerprint:
        return None
    levels = tuple(round(sigma, 6) for sigma in sigmas.tolist())
    mu = find_mu(latent["samples"], steps, read_model(model))
    return PlainRun(Kind(fingerprint, float(guidance), levels, computes_roughly(model), mu), positive)


def is_plain(model: Any) -> bool:
    """Whether nothing of another node's stands between a model and its answers."""
    options = model.model_options
    transformer = options.get("transformer_options", {})
    around = [*AROUND_GUIDANCE, "model_function_wrapper"]
    wrappers = (*transformer.get("wrappers", {}).values(), *model.wrappers.values())
    return (
        not any(flatten(options.get(name)) for name in around)
        and not any(flatten(transformer.get(name)) for name in ("patches", "patches_replace"))
        and transformer.get("easycache") is None
        and all(key in _HARMLESS or not flatten(held) for kind in wrappers for key, held in kind.items())
    )
