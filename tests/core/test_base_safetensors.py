"""Reading safetensors headers: what is sound is read exactly, everything else ends in one sentence."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import torch
from kleinod_pure.base.safetensors import MAX_HEADER_BYTES, read_header
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tests.model.headers import header_of, write_header, write_shapes

SHAPES = {"a.weight": (3, 4), "b.weight": (5,), "empty.weight": (0, 7), "scalar": ()}


def refusal(path: Path, field: str = "vae") -> str:
    """The sentence `read_header` refuses this file with."""
    with pytest.raises(ValueError) as caught:
        read_header(path, field)
    sentence = str(caught.value)
    assert sentence.startswith(f'{field} "{path.name}" '), sentence
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 400, sentence
    return sentence


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    state = {
        "one": torch.zeros(2, 3, dtype=torch.bfloat16),
        "two": torch.zeros(4, dtype=torch.float8_e4m3fn),
        "three": torch.zeros((), dtype=torch.int64),
    }
    path = tmp_path / "x.safetensors"
    save_file(state, path, metadata={"modelspec.title": "A name"})
    header = read_header(path)
    assert header.shapes == {"one": (2, 3), "two": (4,), "three": ()}
    assert {key: entry.dtype for key, entry in header.tensors.items()} == {
        "one": "BF16",
        "two": "F8_E4M3",
        "three": "I64",
    }
    assert header.metadata == {"modelspec.title": "A name"}
    assert header.label == 'diffusion_model "x.safetensors"'


def test_name_picked_in_a_subfolder_is_the_name_shown(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "x.safetensors", SHAPES)
    assert read_header(path, "vae", "sub/x.safetensors").label == 'vae "sub/x.safetensors"'


def test_counts_parameters_and_names_the_common_type(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "x.safetensors", SHAPES)
    header = read_header(path)
    assert header.parameters == 12 + 5 + 0 + 1
    assert header.dtype == "bf16"


def test_quantised_weights_count_as_weights_and_scales_as_nothing(tmp_path: Path) -> None:
    shapes = {
        "fp8.weight": (8, 16),
        "fp8.weight_scale": (),
        "fp4.weight": (8, 8),
        "fp4.weight_scale": (8, 1),
        "fp4.weight_scale_2": (),
        "fp4.comfy_quant": (30,),
    }
    kinds = {
        "fp8.weight": "F8_E4M3",
        "fp8.weight_scale": "F32",
        "fp4.weight": "U8",
        "fp4.weight_scale": "F8_E4M3",
        "fp4.weight_scale_2": "F32",
        "fp4.comfy_quant": "U8",
    }
    path = write_header(tmp_path / "x.safetensors", header_of(shapes, kinds))
    header = read_header(path)
    assert header.parameters == 8 * 16 + 8 * 16
    assert header.matrix("fp4.weight") == (8, 16)
    assert header.matrix("fp8.weight") == (8, 16)


def test_prefix_is_taken_off_and_other_parts_left_out(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "x.safetensors", {"model.diffusion_model.a": (2,), "vae.b": (3,)})
    header = read_header(path)
    assert header.without_prefix("model.diffusion_model.").shapes == {"a": (2,)}
    assert header.without_prefix("nothing.") is header


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7751105712\n",
            "Git LFS pointer",
        ),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        (b"\xef\xbb\xbf\n  <HTML>\n<head></head></html>", "web page"),
        (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF file under another name"),
        (b"PK\x03\x04" + bytes(100), "not a safetensors file"),
        (b'{"error": "Access to model is restricted"}', "not a safetensors file"),
        (b"abc", "not a safetensors file"),
        (struct.pack("<Q", 5000) + b'{"a": {"dtype": "BF16"', "cut off after"),
        (struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" + bytes(50), "not a safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "holds no weights"),
        (struct.pack("<Q", 2) + b"[]", "no table of tensors"),
        (struct.pack("<Q", 4) + b"{\xff\xfe}", "header is not readable"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "header is not readable"),
        (struct.pack("<Q", 25) + b'{"__metadata__":{"a":[]}}', "metadata are no plain text"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert words in refusal(path)


def test_pickle_format_is_refused_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(write_shapes(tmp_path / "x.safetensors", SHAPES).read_bytes())
    assert "cannot carry code" in refusal(path)


@pytest.mark.parametrize("length", [0x280, 0x10280])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    path = write_shapes(tmp_path / "x.safetensors", SHAPES)
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    path.write_bytes(struct.pack("<Q", length) + whole[8:end].ljust(length) + whole[end:])
    assert set(read_header(path).tensors) == set(SHAPES)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "gone.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "cannot be read" in refusal(tmp_path / "folder.safetensors")


@pytest.mark.parametrize("lost", [1, 20, 33])
def test_truncated_file_says_how_much_is_there(tmp_path: Path, lost: int) -> None:
    path = write_shapes(tmp_path / "x.safetensors", SHAPES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    assert f"cut off (it has {36 - lost} of 36 bytes" in refusal(path)
    path.write_bytes(whole[:40])
    assert "cut off after 40 bytes, inside its header" in refusal(path)


@pytest.mark.parametrize("lost", [1, 8])
def test_a_file_that_ends_just_before_its_header_does_is_cut_off_there(tmp_path: Path, lost: int) -> None:
    path = write_shapes(tmp_path / "x.safetensors", SHAPES)
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    path.write_bytes(whole[: end - lost])
    assert f"cut off after {end - lost} bytes, inside its header" in refusal(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "PICKLE"}, "unknown type"),
        ({"dtype": ["BF16"]}, "unknown type"),
        ({"shape": [3, -4]}, "no valid shape"),
        ({"shape": [True, 12]}, "no valid shape"),
        ({"shape": "12"}, "no valid shape"),
        ({"shape": [1] * 9}, "no valid shape"),
        ({"shape": [2**62, 2**62]}, "does not fit its place"),
        ({"shape": [3, 5]}, "does not fit its place"),
        ({"data_offsets": [0]}, "no valid place"),
        ({"data_offsets": [-24, 0]}, "no valid place"),
        ({"data_offsets": [24, 0]}, "does not fit its place"),
        ({"data_offsets": [2, 26]}, "overlap or leave gaps"),
        ({"data_offsets": [0.0, 24.0]}, "no valid place"),
    ],
)
def test_hostile_entries(tmp_path: Path, change: dict, words: str) -> None:
    table = header_of(SHAPES)
    table["a.weight"].update(change)
    assert words in refusal(write_header(tmp_path / "x.safetensors", table, 36))


def test_two_tensors_on_the_same_bytes(tmp_path: Path) -> None:
    table = header_of(SHAPES)
    table["twin"] = table["a.weight"]
    assert "overlap" in refusal(write_header(tmp_path / "x.safetensors", table))


def test_bytes_behind_the_last_tensor(tmp_path: Path) -> None:
    assert "7 bytes follow" in refusal(write_header(tmp_path / "x.safetensors", header_of(SHAPES), 36 + 7))


def test_names_in_sentences_stay_short_and_printable(tmp_path: Path) -> None:
    table = header_of({"evil\n\x1b[31m" + "x" * 5000: (3,)}, "U8")
    next(iter(table.values()))["shape"] = [4]
    sentence = refusal(write_header(tmp_path / "x.safetensors", table, 3))
    assert "\x1b" not in sentence


def test_a_hundred_random_corruptions_are_all_refused_or_agree_with_safetensors(tmp_path: Path) -> None:
    random_ = random.Random(20)
    sound = write_shapes(
        tmp_path / "sound.safetensors", {f"layer.{i}.weight": (4, 4) for i in range(6)}
    ).read_bytes()
    length = 8 + int.from_bytes(sound[:8], "little")
    path = tmp_path / "x.safetensors"
    refused = 0
    for _ in range(100):
        broken = bytearray(sound)
        for _ in range(random_.randint(1, 6)):
            place = random_.randrange(length)
            kind = random_.randrange(3)
            if kind == 0:
                broken[place] = random_.randrange(256)
            elif kind == 1:
                del broken[place : place + random_.randint(1, 30)]
            else:
                broken[place:place] = random_.randbytes(random_.randint(1, 8))
        path.write_bytes(bytes(broken))
        try:
            header = read_header(path)
        except ValueError:
            refused += 1
            continue
        # What we let through must be what the real reader sees.
        with safe_open(path, framework="pt") as file:
            assert set(file.keys()) == set(header.tensors)
    assert refused > 60


def test_is_at_least_as_strict_as_the_real_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tables = [header_of(SHAPES) for _ in range(3)]
    tables[0]["a.weight"]["shape"] = [4, 4]
    tables[1]["b.weight"]["data_offsets"] = [20, 30]
    tables[2]["__metadata__"] = {"format": 1}
    for table in tables:
        write_header(path, table, 36)
        with pytest.raises(SafetensorError), safe_open(path, framework="pt"):
            pass
        refusal(path)


def test_header_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "x.safetensors", {"big": (1024, 1024, 1024, 64)}, "F32")
    assert path.stat().st_size > 2**37, "a sparse file larger than any memory"
    assert read_header(path).parameters == 2**36
    assert json.loads(json.dumps(read_header(path).metadata)) == {}
