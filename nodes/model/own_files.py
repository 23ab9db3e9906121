"""The user's own files as one working set: what Klein Loader's button picks, and what is still missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..base import seams
from ..base.doors import Doors
from ..base.errors import ArtistError
from ..base.flux2 import KLEIN_4B
from ..base.safetensors import read_header
from ..base.sentences import Sentence
from .choices import AUTOMATIC, NANO, is_gguf, models_to_try
from .engine import choose_text_encoder, choose_vae
from .facts import KleinFacts, facts_from_sizes, nano_facts
from .folders import list_diffusion_models
from .pairing import check_diffusion_model
from .real_weights import BASE, ENCODER, VAE, Weights
from .routes import add_routes

folder_paths = seams.find("folder_paths")

NANO_FILE = Path(__file__).with_name("nano_weights") / "transformer.safetensors"

logger = logging.getLogger("kleinod.model")


@dataclass(frozen=True)
class OwnFiles:
    """facts: of the diffusion model, None where there is none. The names are "" where no file fits. missing:
    the files that would make the set whole. reason: a sentence where it is not, and nothing else says why.
    """

    facts: KleinFacts | None = None
    diffusion_model: str = ""
    text_encoder: str = ""
    vae: str = ""
    missing: tuple[Weights, ...] = ()
    reason: Sentence = Sentence("")

    @property
    def ready(self) -> bool:
        return bool(self.diffusion_model and self.text_encoder and self.vae)


def find_own_files(current: str = NANO, variant: str = "auto") -> OwnFiles:
    """The best set among the files in ComfyUI's model folders, by what is in them; only headers are read.

    current: what the loader's picker holds; a Klein file there is kept, klein-nano is not.
    """
    name, facts = _find_model(current, variant)
    missing = [] if facts else [BASE]
    encoder, encoder_reason = _pick(lambda: choose_text_encoder(AUTOMATIC, facts or _klein_4b()).name)
    reason = Sentence("")
    if not encoder and (facts is None or facts.family == KLEIN_4B.name):
        missing.append(ENCODER)
    elif not encoder:
        reason = encoder_reason  # it names the file that this size of Klein needs
    vae, _ = _pick(lambda: choose_vae(AUTOMATIC))
    if not vae:
        missing.append(VAE)
    return OwnFiles(facts, name, encoder, vae, tuple(missing), reason)


def facts_of_file(name: str, variant: str = "auto") -> KleinFacts | None:
    """Facts of a listed diffusion model, None where it is none that Klein nodes run, or tells nothing."""
    if name == NANO:
        built_in = check_diffusion_model(read_header(str(NANO_FILE), "diffusion_model", NANO))
        return nano_facts(
            built_in.hidden, built_in.depth_double, built_in.depth_single, built_in.context_width
        )
    path = folder_paths.get_full_path("diffusion_models", name) if name in list_diffusion_models() else None
    if path is None or is_gguf(name):
        return None
    try:
        return check_diffusion_model(read_header(path, "diffusion_model", name), variant)
    except (ArtistError, OSError) as error:
        logger.debug("Not a Klein: %s", error)
        return None


def _find_model(current: str, variant: str) -> tuple[str, KleinFacts | None]:
    names = [name for name in list_diffusion_models() if name != NANO]
    if current in names:
        names = [current, *(name for name in models_to_try(names) if name != current)]
    else:
        names = models_to_try(names)
    for name in names:
        facts = facts_of_file(name, variant if name == current else "auto")
        if facts is not None:
            return name, facts
    return "", None


def _pick(choose: Callable[[], str]) -> tuple[str, Sentence]:
    try:
        return choose(), Sentence("")
    except (ArtistError, OSError) as error:
        return "", Sentence(str(error))


def _klein_4b() -> KleinFacts:
    double, single = KLEIN_4B.sizes[1:]
    return facts_from_sizes(KLEIN_4B.hidden, double, single, KLEIN_4B.context_width)


def register_routes(doors: Doors) -> None:
    """Put the routes that tell of them on ComfyUI's server, if there is one."""
    server = seams.find_server()
    if server is not None:
        add_routes(server.routes, doors, find_own_files, facts_of_file)
