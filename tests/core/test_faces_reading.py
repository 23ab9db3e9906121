"""Detector files: what is read from them, what is refused, and that nothing in them ever runs."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys

import pytest
import torch
from kleinod_pure.faces import ultralytics_package
from kleinod_pure.faces.blueprint import Blueprint, Part, metadata_of, read_blueprint
from kleinod_pure.faces.network import Network, UnknownLayer
from kleinod_pure.faces.pickles import Record
from kleinod_pure.faces.torch_file import TorchFile
from kleinod_pure.faces.yolo import YoloDetector
from safetensors.torch import save_file

from tests.core.yolo_files import (
    NANO_FILE,
    checkpoint_of,
    name_code,
    pickled,
    small_pictures,
    write_archive,
    write_pt,
)


@pytest.fixture(scope="module")
def nano() -> Blueprint:
    return read_blueprint(NANO_FILE)


def test_a_pt_file_and_our_own_format_hold_the_same_network(tmp_path, nano) -> None:
    read = read_blueprint(write_pt(tmp_path / "face.pt"))
    assert read.labels == ("face",) and read.size == nano.size
    assert read.weights.keys() == nano.weights.keys()
    pictures = small_pictures(2)
    for ours, theirs in zip(
        *(dataclasses.astuple(Network(plan)(pictures.permute(0, 3, 1, 2))) for plan in (nano, read)),
        strict=True,
    ):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def test_our_own_format_survives_a_round_trip(tmp_path, nano) -> None:
    path = tmp_path / "again.safetensors"
    save_file(nano.weights, path, metadata_of(nano))
    again = read_blueprint(path)
    assert (again.network, again.labels, again.size) == (nano.network, nano.labels, nano.size)


def test_the_averaged_model_counts_where_there_are_two(tmp_path, nano) -> None:
    value, storages = checkpoint_of(nano)
    value["ema"], value["model"] = value["model"], Record("ultralytics.nn.tasks.DetectionModel", ())
    assert read_blueprint(write_archive(tmp_path / "a.pt", pickled(value), storages)).labels == ("face",)


def test_files_that_torch_itself_writes_are_read(tmp_path) -> None:
    value = {
        "numbers": torch.arange(12.0).view(3, 4).T,
        "half": torch.ones(2).half(),
        "deep": [(1, {"a": -1})],
    }
    torch.save(value, tmp_path / "x.pt")
    with TorchFile(tmp_path / "x.pt") as file:
        assert torch.equal(file.tensor(file.value["numbers"]), value["numbers"])
        assert torch.equal(file.tensor(file.value["half"]), value["half"])
        assert file.value["deep"] == value["deep"]


def test_layers_we_do_not_know_are_named(nano) -> None:
    parts = dict(nano.network.parts)
    parts["4"] = Part("A2C2f", {}, {})
    plan = dataclasses.replace(nano, network=Part("Sequential", {}, parts))
    with pytest.raises(UnknownLayer, match="made of A2C2f layers"):
        Network(plan)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (pickle.dumps({"a": 1}, protocol=2), "before 2020"),
        (b"GGUF" * 20, "not a PyTorch file"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, content, words) -> None:
    path = tmp_path / "face.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_blueprint(path)


def test_bare_weights_are_refused(tmp_path, nano) -> None:
    save_file(nano.weights, tmp_path / "bare.safetensors")
    torch.save(nano.weights, tmp_path / "bare.pt")
    for name in ("bare.safetensors", "bare.pt"):
        with pytest.raises(ValueError, match="bare weights"):
            read_blueprint(tmp_path / name)


def test_a_refused_name_is_in_the_sentence(tmp_path) -> None:
    path = write_archive(tmp_path / "x.pt", b"\x80\x02" + name_code("os.system") + b".", {})
    with pytest.raises(ValueError, match=r"asks for 'os\.system'.*nothing of it ran"):
        read_blueprint(path)


# --- The ultralytics package: absent, refused, too old


def fake_package(folder, version: str, utils: str = "") -> None:
    """An installed `ultralytics` that leaves a mark when any of it runs."""
    package = folder / "ultralytics"
    package.mkdir()
    mark = f"open({str(folder / 'ran')!r}, 'w').close()\n__version__ = {version!r}\n"
    (package / "__init__.py").write_text(mark)
    (package / "utils.py").write_text(utils)
    metadata = folder / f"ultralytics-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ultralytics\nVersion: {version}\n")


@pytest.fixture
def only_here(tmp_path, monkeypatch):
    """A folder that is all of Python's path, so that whatever else is installed does not count."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        del sys.modules[name]


def test_without_the_package_one_sentence(only_here) -> None:
    assert ultralytics_package.installed_version() is None
    with pytest.raises(ValueError, match="not installed"):
        ultralytics_package.import_guarded()


@pytest.mark.parametrize("version", ["8.3.41", "8.3.42", "8.3.45", "8.3.46"])
def test_compromised_releases_are_refused_before_a_line_of_them_runs(only_here, version) -> None:
    fake_package(only_here, version)
    with pytest.raises(ValueError, match=f"ultralytics {version} is installed.*malicious"):
        ultralytics_package.import_guarded()
    assert not (only_here / "ran").exists() and "ultralytics" not in sys.modules


@pytest.mark.parametrize(
    ("utils", "words"),
    [
        ("", "would load files unsafely. Update it"),
        ("SAFE_LOAD = False\nONLINE = False", "would load files unsafely"),
        ("SAFE_LOAD = True\nONLINE = True", "reporting on"),
        ("raise RuntimeError('broken')", "does not start"),
    ],
)
def test_a_package_that_is_not_safe_is_not_used(only_here, utils, words) -> None:
    fake_package(only_here, "8.3.100", utils)
    with pytest.raises(ValueError, match=words):
        ultralytics_package.import_guarded()


def test_a_name_that_makes_the_package_download_is_refused(only_here) -> None:
    fake_package(only_here, "8.4.190", "SAFE_LOAD, ONLINE = True, False")
    with pytest.raises(ValueError, match="rename it"):
        ultralytics_package.UltralyticsDetector("x", only_here / "yolov5n.pt", 640)
    assert not (only_here / "ran").exists()


def test_what_the_package_changes_is_put_back(only_here) -> None:
    utils = (
        "import os, torch\nassert os.environ['ULTRALYTICS_SAFE_LOAD'] == '1'\n"
        "assert os.environ['YOLO_OFFLINE'] == 'true' and os.environ['YOLO_AUTOINSTALL'] == 'false'\n"
        "SAFE_LOAD, ONLINE = True, False\nos.environ['OMP_NUM_THREADS'] = '77'\nos.environ['LEFT'] = '1'\n"
        "torch.set_num_threads(3)\ntorch.save = torch.load = None\ntorch.set_printoptions(linewidth=320)\n"
    )
    fake_package(only_here, "8.4.190", utils)
    before = dict(os.environ), torch.get_num_threads(), torch.save, torch.load, str(torch.arange(40) / 7)
    assert ultralytics_package.import_guarded().__version__ == "8.4.190"
    assert before == (
        dict(os.environ), torch.get_num_threads(), torch.save, torch.load, str(torch.arange(40) / 7)
    )  # fmt: skip


def test_a_detector_that_answers_with_nan_says_so(nano) -> None:
    weights = {name: value * float("nan") if "cv3" in name else value for name, value in nano.weights.items()}
    detector = YoloDetector("x", Network(dataclasses.replace(nano, weights=weights)))
    with pytest.raises(ValueError, match='detector "x" answers with numbers that are none'):
        detector.detect(small_pictures(1)[0], 0.5)
