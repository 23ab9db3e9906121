"""Picking a detector in ComfyUI: folders shared with other packs, files read, sentences for what is wrong."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from kleinod.nodes.faces import mediapipe
from kleinod.nodes.faces.detectors import MEDIAPIPE, NANO_FACES, NANO_FILE, list_detectors, load_detector
from kleinod.nodes.faces.mediapipe import MediaPipeDetector
from kleinod.nodes.faces.yolo import YoloDetector
from safetensors.torch import save_file

from tools.nano.faces import draw_scene


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """An empty models folder, as if ComfyUI had just started."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    known = {
        key: (list(paths), set(suffixes))
        for key, (paths, suffixes) in folder_paths.folder_names_and_paths.items()
        if not key.startswith("ultralytics")
    }
    known["detection"] = ([str(tmp_path / "detection")], {".safetensors"})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for folder in ("ultralytics/bbox", "ultralytics/segm", "detection"):
        (tmp_path / folder).mkdir(parents=True)
    yield tmp_path


def put(path: Path) -> Path:
    path.write_bytes(NANO_FILE.read_bytes())
    return path


def test_files_of_all_folders_are_on_offer_faces_first(models) -> None:
    assert list_detectors() == [NANO_FACES]
    for name in ("bbox/hand.pt", "bbox/face_yolov8m.pt", "segm/person-seg.pt", "any.pth", "bbox/notes.txt"):
        put(models / "ultralytics" / name)
    (models / "ultralytics" / "bbox" / "more").mkdir()
    put(models / "ultralytics" / "bbox" / "more" / "face.safetensors")
    put(models / "detection" / "mediapipe_face_fp32.safetensors")
    put(models / "detection" / "rtdetr.safetensors")
    assert list_detectors() == [
        "bbox/face_yolov8m.pt",
        "bbox/more/face.safetensors",
        "any.pth",
        "bbox/hand.pt",
        "segm/person-seg.pt",
        MEDIAPIPE + "mediapipe_face_fp32.safetensors",
        NANO_FACES,
    ]


def test_folders_of_other_packs_and_of_the_user_stay(models) -> None:
    elsewhere = models / "elsewhere"
    elsewhere.mkdir()
    put(elsewhere / "mine.pt")
    folder_paths.folder_names_and_paths["ultralytics_bbox"] = ([str(elsewhere)], {".pt"})
    put(models / "ultralytics" / "bbox" / "face.pt")
    for _ in range(3):
        assert list_detectors() == ["bbox/face.pt", "bbox/mine.pt", NANO_FACES]
    paths, suffixes = folder_paths.folder_names_and_paths["ultralytics_bbox"]
    assert paths == [str(elsewhere), str(models / "ultralytics" / "bbox")] and suffixes == {".pt"}


def test_a_file_from_the_folder_finds_what_the_built_in_one_finds(models) -> None:
    put(models / "ultralytics" / "bbox" / "face.safetensors")
    picture = torch.from_numpy(draw_scene(np.random.default_rng(3))[0])
    built_in, picked = load_detector(NANO_FACES), load_detector("bbox/face.safetensors")
    found = built_in.detect(picture, 0.4)
    assert len(found) >= 3 and picked.detect(picture, 0.4) == found
    assert picked.name == "bbox/face.safetensors" and load_detector("bbox/face.safetensors") is picked


def test_a_detector_that_is_not_sure_enough_says_how_sure_it_was(models) -> None:
    from kleinod.nodes.faces.engine import Source, find_faces

    picture = torch.from_numpy(draw_scene(np.random.default_rng(3))[0])[None]
    best = load_detector(NANO_FACES).detect(picture[0], 0.4)[0].score
    faces, _, (reason,) = find_faces(picture, Source(NANO_FACES), 0.9999)
    assert faces == [[]]
    said = float(reason.partition("best scores ")[2].partition(",")[0])
    assert said <= best < said + 0.01 and "below confidence 0.9999" in reason
    assert find_faces(picture, Source(NANO_FACES), said)[2] == [], "what the sentence asks for helps"
    (nothing,) = find_faces(torch.zeros(1, 64, 64, 3), Source(NANO_FACES), 0.4)[2]
    assert "nothing like a face" in nothing or "best scores" in nothing


def test_a_detector_goes_with_the_model_it_was_used_with(models) -> None:
    from kleinod.nodes.faces.engine import Source, find_faces

    from tests.model.tiny_klein import load_tiny_model

    model, picture = load_tiny_model(), torch.zeros(1, 64, 64, 3)
    for name in ("one", "two", "three"):
        put(models / "ultralytics" / "bbox" / f"{name}.safetensors")
        find_faces(picture, Source(f"bbox/{name}.safetensors"), 0.5, model)
    gc.collect()
    alive = [found for found in gc.get_objects() if type(found) is YoloDetector]
    assert [detector.name for detector in alive] == ["bbox/three.safetensors"]
    assert load_detector("bbox/three.safetensors") is alive[0]
    gone = weakref.ref(alive.pop())
    del model
    gc.collect()
    assert gone() is None


def test_a_replaced_file_is_read_again(models) -> None:
    path = put(models / "ultralytics" / "bbox" / "face.safetensors")
    first = load_detector("bbox/face.safetensors")
    os.utime(path, ns=(1, 1))
    assert load_detector("bbox/face.safetensors") is not first


def test_what_is_wrong_is_said_with_the_files_name(models) -> None:
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {models / 'ran'}",)

    torch.save({"model": Hostile()}, models / "ultralytics" / "bbox" / "bad.pt")
    with pytest.raises(ValueError, match=r'detector "bbox/bad\.pt" cannot be used: it asks for .*\.system'):
        load_detector("bbox/bad.pt")
    assert not (models / "ran").exists() and "ultralytics" not in sys.modules
    for name in ("bbox/gone.pt", "../../etc/passwd", "bbox/../../x.pt", f"{MEDIAPIPE}gone.safetensors"):
        with pytest.raises(ValueError, match="there is no such file in models"):
            load_detector(name)


def mediapipe_weights() -> dict[str, torch.Tensor]:
    """Random weights in the layout of ComfyUI's file, with an oval of 36 points."""
    from comfy_extras.mediapipe.face_landmarker import FaceLandmarker

    torch.manual_seed(0)
    weights = {}
    for variant in ("short", "full"):
        model = FaceLandmarker(device="cpu", dtype=torch.float32, operations=None, detector_variant=variant)
        for name, value in model.state_dict().items():
            value = torch.randn_like(value) * 0.05 if value.is_floating_point() else value
            renamed = name.replace("detector.", f"detector_{variant}.", 1)
            weights[renamed] = value.contiguous()
    edges = [(i, (i + 1) % 36) for i in range(36)]
    for part in (
        "face_oval",
        "left_eye",
        "right_eye",
        "left_eyebrow",
        "right_eyebrow",
        "lips",
        "irises",
        "nose",
    ):
        weights[f"topology.{part}"] = torch.tensor(edges, dtype=torch.int32)
    weights["canonical_vertices"] = torch.rand(468, 3)
    weights["procrustes_indices"] = torch.arange(33, dtype=torch.int32)
    weights["procrustes_weights"] = torch.ones(33)
    return weights


def test_mediapipe_of_comfyui_gives_faces_with_outlines(models, monkeypatch) -> None:
    """Through core's own model with random weights: what it finds means nothing, its form does."""
    monkeypatch.setattr(mediapipe, "MAX_FACES", 3)
    save_file(mediapipe_weights(), models / "detection" / "mediapipe_face.safetensors")
    detector = load_detector(MEDIAPIPE + "mediapipe_face.safetensors")
    assert isinstance(detector, MediaPipeDetector)
    faces = detector.search(torch.rand(300, 400, 3), 0.5)
    assert faces, "random weights find something in about half of all places"
    for face in faces:
        x0, y0, x1, y1 = face.box
        assert 0 <= x0 < x1 <= 400 and 0 <= y0 < y1 <= 300
        assert face.mask.shape == (300, 400) and set(face.mask.unique().tolist()) <= {0.0, 1.0}


def test_a_foreign_file_is_no_mediapipe_model(models) -> None:
    save_file({"x": torch.zeros(1)}, models / "detection" / "mediapipe_face.safetensors")
    with pytest.raises(ValueError, match="not the MediaPipe face model"):
        load_detector(MEDIAPIPE + "mediapipe_face.safetensors")
