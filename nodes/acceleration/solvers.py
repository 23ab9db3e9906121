"""ComfyUI's solvers as acceleration has to know them, by the names of their functions."""

from __future__ import annotations

from typing import Any

# They call the model once a step and add no noise: what they do is linear in what the model says.
LINEAR = {
    "sample_euler", "sample_dpmpp_2m", "sample_res_multistep", "sample_lms", "sample_ipndm", "sample_ipndm_v",
    "sample_deis", "sample_gradient_estimation", "sample_unipc", "sample_unipc_bh2", "sample_fast",
}  # fmt: skip

# They call it once a step as well, and add noise in each.
ADDING_NOISE = {
    "sample_euler_ancestral", "sample_res_multistep_ancestral", "sample_er_sde", "sample_sa_solver",
    "sample_ddpm", "sample_lcm", "sample_dpmpp_3m_sde", "sample_dpmpp_3m_sde_gpu",
}  # fmt: skip

# Their noise is what one Brownian path, the seed's, does between two sigmas: fewer steps lead nearly to
# the same picture. Not 3M SDE: of third order, it goes wrong by itself with few steps.
ALONG_A_PATH = {
    "sample_dpmpp_2m_sde", "sample_dpmpp_2m_sde_heun", "sample_dpmpp_2m_sde_gpu",
    "sample_dpmpp_2m_sde_heun_gpu",
}  # fmt: skip


def name_solver(sampler: Any) -> str:
    """The function's name of a SAMPLER; empty where it has none."""
    return getattr(getattr(sampler, "sampler_function", None), "__name__", "")


def read_options(sampler: Any) -> dict[str, Any]:
    return dict(getattr(sampler, "extra_options", None) or {})


def calls_once_a_step(sampler: Any) -> bool:
    return name_solver(sampler) in LINEAR | ADDING_NOISE | ALONG_A_PATH


def has_noise_path(sampler: Any) -> bool:
    """Its noise is one path, and fewer steps keep to it; False where options switch it off."""
    options = read_options(sampler)
    silent = 0 in (options.get("eta", 1.0), options.get("s_noise", 1.0))
    return name_solver(sampler) in ALONG_A_PATH and not silent
