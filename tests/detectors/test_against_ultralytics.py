"""Our own reading and inference against Ultralytics itself: the same boxes, scores, names and outlines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kleinod_pure.faces.blueprint import read_blueprint
from kleinod_pure.faces.network import Network, UnknownLayer
from kleinod_pure.faces.yolo import YoloDetector

from tests.borrowed import ROOT, run_script
from tests.detectors.photograph import photograph_with_face

READ_BY_US = ("yolov8n", "yolov8n-seg", "yolo11n", "yolo26n-seg")
READ_BY_THEM = ("yolov10n",)
CONFIDENCE = 0.5


@pytest.fixture(scope="module")
def ultralytics(tmp_path_factory) -> tuple[Path, dict]:
    """The folder with files and findings, and what the guard let through."""
    folder = tmp_path_factory.mktemp("ultralytics")
    script = Path(__file__).with_name("ultralytics_client.py")
    return folder, run_script("detectors", script, str(ROOT), str(folder), *READ_BY_US, *READ_BY_THEM)


@pytest.mark.parametrize("name", READ_BY_US)
def test_box_for_box(ultralytics, name) -> None:
    folder, _ = ultralytics
    network = Network(read_blueprint(folder / f"{name}.pt"))
    network.size = 256
    detector = YoloDetector(name, network)
    pictures = torch.load(folder / "pictures.pt", weights_only=True)
    expected = torch.load(folder / f"{name}.found.pt", weights_only=True)
    compared = 0
    for picture, theirs in zip(pictures, expected, strict=True):
        ours = [
            {"box": face.box, "score": face.score, "label": face.label, "mask": face.mask}
            for face in detector.search(picture, CONFIDENCE)
        ]
        compared += assert_same(ours, theirs) + assert_same(theirs, ours)
    assert compared >= 4, "random weights that find nothing prove nothing"


def assert_same(faces: list[dict], others: list[dict]) -> int:
    """Each face, but for those on the very threshold, is among the others. Ultralytics folds each norm into
    its convolution, hence not bit for bit."""
    sure = [face for face in faces if face["score"] > CONFIDENCE + 0.002]
    for face in sure:
        alike = [other for other in others if other["label"] == face["label"]]
        nearest = min(alike, key=lambda other: _apart(face["box"], other["box"]))
        assert _apart(face["box"], nearest["box"]) < 0.05, (face["box"], nearest["box"])
        assert abs(face["score"] - nearest["score"]) < 1e-3
        if face["mask"] is not None:
            differing = ((face["mask"] > 0.5) != (nearest["mask"] > 0.5)).float().mean()
            assert differing < 0.002, differing
    return len(sure)


def _apart(a: tuple, b: tuple) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def test_faces_are_chosen_by_the_names_in_the_file(ultralytics) -> None:
    folder, _ = ultralytics
    found = torch.load(folder / "yolov8n.found.pt", weights_only=True)
    assert {face["label"] for faces in found for face in faces} == {"face"}
    assert set(read_blueprint(folder / "yolov8n.pt").labels) == {"face", "hand"}


@pytest.mark.parametrize("name", READ_BY_THEM)
def test_other_layers_are_left_to_the_package(ultralytics, name) -> None:
    folder, _ = ultralytics
    with pytest.raises(UnknownLayer):
        Network(read_blueprint(folder / f"{name}.pt"))
    found = torch.load(folder / f"{name}.found.pt", weights_only=True)
    assert sum(map(len, found)) >= 1


def test_the_guard_keeps_the_process_as_it_was_and_off_the_network(ultralytics) -> None:
    _, seen = ultralytics
    assert seen["unchanged"] is True
    assert [event for event in seen["events"] if event in ("socket.connect", "socket.getaddrinfo")] == []


def test_mtcnn_sees_the_face_where_it_is() -> None:
    """The photograph's face by eye: hairline to chin, ear to ear."""
    image, boxes = photograph_with_face()
    assert image.shape == (1, 512, 512, 3) and len(boxes) == 1
    x0, y0, x1, y1 = boxes[0]
    assert abs(x0 - 181) < 12 and abs(y0 - 62) < 12 and abs(x1 - 268) < 12 and abs(y1 - 172) < 12
