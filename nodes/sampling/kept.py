"""Results of a longer run as files, each as soon as it is done: nothing that comes later can lose them."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from comfy_api.v0_0_2 import io, ui
from torch import Tensor

from .own_seed import prompt_of_one, workflow_of_one

logger = logging.getLogger("kleinod.sampling")


class KeptResults:
    """Writes results into ComfyUI's temporary folder, with the graph that makes each alone.

    hidden: the node's, with prompt, extra_pnginfo and unique_id; None outside of a queue, where nothing is
    written.
    """

    def __init__(self, hidden: Any) -> None:
        self._hidden = hidden
        self.files: list[Any] = []

    def keep(self, pictures: Tensor, seed: int) -> None:
        """pictures: IMAGE `[B, H, W, 3]` of one result."""
        if self._hidden is None or self._hidden.unique_id is None:
            return
        node_id = str(self._hidden.unique_id)
        extra = dict(self._hidden.extra_pnginfo or {})
        if isinstance(extra.get("workflow"), dict):
            extra["workflow"] = workflow_of_one(extra["workflow"], node_id, seed)
        written = SimpleNamespace(
            hidden=SimpleNamespace(
                prompt=prompt_of_one(self._hidden.prompt or {}, node_id, seed),
                extra_pnginfo={**extra, "seed": seed},
            )
        )
        try:
            self.files += ui.ImageSaveHelper.save_images(
                pictures.detach(),
                f"Klein seed {seed}",
                io.FolderType.temp,
                written,
                compress_level=1,
            )
        except OSError as error:  # a full disk must not end the run
            logger.warning("Seed %s is not shown on the node: %s.", seed, error.strerror or error)

    def __enter__(self) -> KeptResults:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Of a run that failed, the log says where its finished results are."""
        if kind is not None and self.files:
            names = ", ".join(file["filename"] for file in self.files)
            logger.warning("What was finished before lies in ComfyUI's temporary folder: %s.", names)

    def images(self) -> dict[str, list[Any]]:
        """What the page shows on the node, as the `ui` of its output."""
        return {"images": self.files} if self.files else {}
