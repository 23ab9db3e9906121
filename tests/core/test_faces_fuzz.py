"""More than two hundred hostile or broken detector files and pictures: nothing runs, one sentence each.

Every payload would write `marker` if any of it ran. Files are made in memory from klein-nano's face detector.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import pickle
import random
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch
from kleinod_pure.faces.blueprint import METADATA_KEY, metadata_of, read_blueprint
from kleinod_pure.faces.network import Network
from kleinod_pure.faces.pickles import Record, Storage, TensorPlan
from kleinod_pure.faces.yolo import YoloDetector
from safetensors.torch import save

from tests.core.yolo_files import NANO_FILE, Raw, call_code, checkpoint_of, name_code, pickled

# The longest, 100,000 codes of a pickle, takes a fifth of it; a file decides no more than that.
MOST_CALLS = 3_000_000


def load(path: Path) -> Network:
    return Network(read_blueprint(path))


@contextlib.contextmanager
def few_calls() -> Iterator[None]:
    """Ends what goes on and on: so many functions, Python's and C's, may be called inside, and no more."""
    calls = itertools.count(1)

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call") and next(calls) > MOST_CALLS:
            pytest.fail(f"more than {MOST_CALLS:,} calls")

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def assert_one_sentence(path: Path) -> str:
    with pytest.raises(ValueError) as caught, few_calls():
        load(path)
    text = str(caught.value)
    assert 10 < len(text) < 300 and "\n" not in text and text.endswith("."), text
    assert re.match(r"its? ", text), text
    return text


@pytest.fixture(scope="module")
def plan():
    return read_blueprint(NANO_FILE)


@pytest.fixture(scope="module")
def checkpoint(plan):
    return checkpoint_of(plan)


def zipped(pickle_code: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_code)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return held.getvalue()


# --- Pickles that want to run something

FUNCTIONS = (
    "os.system posix.system nt.system os.popen subprocess.Popen subprocess.check_output subprocess.call "
    "builtins.eval builtins.exec __builtin__.eval __builtin__.exec builtins.compile builtins.open io.open "
    "_io.open builtins.__import__ importlib.import_module runpy.run_path runpy.run_module pty.spawn "
    "torch.load torch.hub.load torch.hub.load_state_dict_from_url torch.serialization.load torch.jit.load "
    "torch.ops.load_library torch.utils.cpp_extension.load numpy.load numpy.fromfile "
    "numpy.testing._private.utils.runstring pickle.loads pickle.load _pickle.loads marshal.loads "
    "shutil.rmtree os.remove os.unlink pathlib.Path webbrowser.open urllib.request.urlopen "
    "urllib.request.urlretrieve socket.socket ctypes.CDLL operator.attrgetter operator.methodcaller "
    "functools.partial functools.reduce types.FunctionType types.CodeType code.interact pdb.run cProfile.run "
    "timeit.timeit doctest.debug_script bdb.Bdb asyncio.run concurrent.futures.ThreadPoolExecutor "
    "multiprocessing.Process threading.Thread signal.signal sys.exit os._exit os.fork "
    "dill._dill._create_code dill._dill._load_type cloudpickle.loads joblib.load codecs.decode "
    "zipfile.ZipFile tempfile.mkstemp "
    "ultralytics.utils.downloads.safe_download ultralytics.utils.checks.check_requirements "
    "ultralytics.nn.tasks.torch_safe_load ultralytics.nn.modules.os.system torch._utils.importlib "
    "torch.nn.modules.module.torch.load comfy.utils.load_torch_file __main__.anything "
    "torch.storage._load_from_bytes torch._C._cuda_init logging.config.dictConfig"
).split()


def run_function(path: str, command: str) -> bytes:
    return call_code(path, command)


def by_stack(path: str, command: str) -> bytes:
    """STACK_GLOBAL of protocol 4, its names as plain strings."""
    module, _, name = path.rpartition(".")
    parts = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name, command))
    head, tail = parts[: -2 - len(command)], parts[-2 - len(command) :]
    return head + b"\x93" + tail + b"\x85R"


def by_instance(path: str, command: str) -> bytes:
    """INST of protocol 0."""
    module, _, name = path.rpartition(".")
    return b"(X" + struct.pack("<I", len(command)) + command.encode() + f"i{module}\n{name}\n".encode()


def by_object(path: str, command: str) -> bytes:
    return b"(" + name_code(path) + b"X" + struct.pack("<I", len(command)) + command.encode() + b"o"


def by_new(path: str, command: str) -> bytes:
    text = b"X" + struct.pack("<I", len(command)) + command.encode()
    return name_code(path) + text + b"\x85}\x92"  # NEWOBJ_EX


def by_attribute(path: str, command: str) -> bytes:
    """getattr(<something allowed>, "__globals__")..."""
    rebuild = Raw(name_code("torch._utils._rebuild_tensor_v2"))
    return call_code("builtins.getattr", rebuild, "__globals__") + b"0" + call_code(path, command)


WAYS: tuple[Callable[[str, str], bytes], ...] = (
    run_function, by_stack, by_instance, by_object, by_new, by_attribute,
)  # fmt: skip


def hostile_pickles(value: dict, command: str) -> dict[str, bytes]:
    """Pickles by a name that tells what they try."""
    made = {}
    for number, path in enumerate(FUNCTIONS):
        code = WAYS[number % len(WAYS)](path, command)
        made[f"{path} by {WAYS[number % len(WAYS)].__name__}"] = b"\x80\x04" + code + b"."

    class Reducing:
        def __reduce__(self):
            return exec, (f"open({command!r}, 'w').close()",)

    for protocol in range(6):
        made[f"a reducing object, protocol {protocol}"] = pickle.dumps({"model": Reducing()}, protocol)
    trap = Raw(call_code("builtins.exec", f"open({command!r}, 'w').close()"))
    model = value["model"]
    for place in ("before", "ema", "train_args", "inside", "names", "arguments", "weights"):
        wrong = {**value}
        if place == "before":
            wrong = {"optimizer": trap, **value}
        elif place in ("ema", "train_args"):
            wrong[place] = trap
        elif place == "inside":
            wrong["model"] = Record(model.path, (), {**model.state, "_forward_hooks": {0: trap}})
        elif place == "names":
            wrong["model"] = Record(model.path, (), {**model.state, "names": {0: trap}})
        elif place == "arguments":
            wrong["model"] = Record(model.path, (trap,), model.state)
        else:
            wrong["model"] = Record(model.path, (), {**model.state, "_parameters": {"a": trap}})
        made[f"a trap in {place}"] = pickled(wrong)
    for name in ("__class__", "__globals__", "__reduce__", "load_state_dict", "system", ""):
        first = Raw(name_code("ultralytics.nn.modules.head.Detect"))
        made[f"getattr {name}"] = pickled(Raw(call_code("builtins.getattr", first, name)))
    made["extension registry"] = b"\x80\x02\x82\x01."
    made["persistent id of protocol 0"] = b"Pcos\nsystem\n."
    made["out-of-band buffer"] = b"\x80\x05\x97."
    return made


def test_no_hostile_pickle_runs(tmp_path, checkpoint) -> None:
    marker = tmp_path / "marker"
    value, storages = checkpoint
    files = hostile_pickles(value, str(marker))
    assert len(files) >= 100
    for what, code in files.items():
        path = tmp_path / "hostile.pt"
        path.write_bytes(zipped(code, storages if what.startswith("a trap") else None))
        assert_one_sentence(path)
        assert not marker.exists(), what
        # The same pickle bare, as very old PyTorch wrote it.
        path.write_bytes(code)
        assert_one_sentence(path)
        assert not marker.exists(), what


def test_the_traps_are_real(tmp_path) -> None:
    """Python's own unpickler falls into them, or the test above would prove nothing."""
    marker = tmp_path / "marker"
    pickle.loads(b"\x80\x02" + call_code("builtins.exec", f"open({str(marker)!r}, 'w').close()") + b".")
    assert marker.exists()
    marker.unlink()
    pickle.loads(b"\x80\x04" + by_stack("os.system", f"touch {marker}") + b".")
    assert marker.exists()
    marker.unlink()
    pickle.loads(by_instance("os.system", f"touch {marker}") + b".")
    assert marker.exists()


# --- Pickles and archives that want to exhaust


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1)


def exhausting_pickles() -> dict[str, bytes]:
    doubling = b")q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(80)
    )
    huge = 2**40
    storage = Storage("0", "float32", 4)
    return {
        "a memo place far out": b"\x80\x02Nr\xff\xff\xff\xff.",
        "a text that is not there": b"\x80\x02X\xff\xff\xff\xff.",
        "a long text that is not there": b"\x80\x04\x8d" + b"\xff" * 8 + b".",
        "bytes that are not there": b"\x80\x03B\xff\xff\xff\xff.",
        "a doubling tuple as a key": b"\x80\x02}" + doubling + b"Ns.",
        "a doubling tuple as the model": b"\x80\x02}X\x05\x00\x00\x00model" + doubling + b"s.",
        "lists in lists": b"\x80\x02" + nested(20_000) + b".",
        "only marks": b"\x80\x02" + b"(" * 100_000,
        "no end": b"\x80\x02" + b"N" * 100_000,
        "pops of nothing": b"\x80\x02" + b"0" * 10 + b".",
        "pops of marks": b"\x80\x02(\x85.",
        "a tensor of 2**40": pickled({"model": TensorPlan(storage, 0, (huge,), (1,))}),
        "a tensor from one number": pickled({"model": TensorPlan(storage, 0, (huge,), (0,))}),
        "a tensor beyond its storage": pickled({"model": TensorPlan(storage, 3, (2,), (1,))}),
        "a tensor before its storage": pickled({"model": TensorPlan(storage, -1, (2,), (1,))}),
        "a tensor of many axes": pickled({"model": TensorPlan(storage, 0, (1,) * 99, (1,) * 99)}),
        "a tensor of true": pickled({"model": TensorPlan(storage, True, (True,), (True,))}),
        "a storage of less than nothing": pickled({"model": Storage("0", "float32", -5)}),
        "a storage of no name": pickled({"model": Raw(b"(X\x07\x00\x00\x00storageNNNNtQ")}),
        "attributes for a number": b"\x80\x02K\x01}b.",
        "items for a list": b"\x80\x02]K\x01K\x02s.",
        "an odd dict": b"\x80\x02}(K\x01u.",
        "nothing": b"",
        "just the end": b".",
    }


def hostile_archives(good: bytes) -> dict[str, bytes]:
    def rewritten(change: Callable[[zipfile.ZipFile, str, bytes], None], compression: int = 0) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(held, "w", compression) as target:
            for entry in source.infolist():
                change(target, entry.filename, source.read(entry))
        return held.getvalue()

    def patched(offset: int, value: bytes, signature: bytes = b"PK\x01\x02") -> bytes:
        at = good.index(signature) + offset
        return good[:at] + value + good[at + len(value) :]

    def bomb() -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("archive/data.pkl", bytes(50_000_000))
        return held.getvalue()

    return {
        "compressed": rewritten(lambda z, n, d: z.writestr(n, d), zipfile.ZIP_DEFLATED),
        "a bomb": bomb(),
        "no pickle": rewritten(lambda z, n, d: None if n.endswith("data.pkl") else z.writestr(n, d)),
        "no numbers": rewritten(lambda z, n, d: z.writestr(n, d) if n.endswith("data.pkl") else None),
        "half the numbers": rewritten(lambda z, n, d: z.writestr(n, d if "pkl" in n else d[: len(d) // 2])),
        "two folders": rewritten(lambda z, n, d: z.writestr(n if "pkl" in n else "b/" + n, d)),
        "climbing names": rewritten(lambda z, n, d: z.writestr("../../" + n, d)),
        "big-endian": rewritten(lambda z, n, d: z.writestr(n, d)).replace(b"little", b"bigger"),
        "encrypted": patched(8, b"\x01\x00"),
        "a size of 4 GB": patched(24, b"\xfe\xff\xff\xff"),
        "an unknown method": patched(10, b"\x63\x00"),
        "an entry elsewhere": patched(42, b"\xff\xff\xff\x7f"),
        "a wrong checksum": patched(16, b"\x00\x00\x00\x00"),
        "only the end record": good[good.index(b"PK\x05\x06") :],
        "many entries": rewritten(
            lambda z, n, d: [z.writestr(f"archive/data/{i}x{n[-3:]}", b"") for i in range(30)]
        ),
    }


def test_exhausting_files_end_quickly(tmp_path, checkpoint) -> None:
    value, storages = checkpoint
    files = {what: zipped(code, {"0": bytes(16)}) for what, code in exhausting_pickles().items()}
    held = io.BytesIO(zipped(pickled(value), storages))
    with zipfile.ZipFile(held, "a") as archive:
        archive.writestr("archive/byteorder", "little")
    files |= hostile_archives(held.getvalue())
    for what, content in files.items():
        path = tmp_path / "hostile.pt"
        path.write_bytes(content)
        try:
            assert_one_sentence(path)
        except BaseException as error:
            raise AssertionError(what) from error


def test_cut_and_damaged_files(tmp_path, checkpoint) -> None:
    """Cut anywhere: always refused. One bit turned in the pickle: refused or harmless, no other error."""
    value, storages = checkpoint
    code = pickled(value)
    good = zipped(code, storages)
    draw = random.Random(4)
    path = tmp_path / "broken.pt"
    for cut in [1, 3, 30, 60, *(draw.randrange(len(good)) for _ in range(16))]:
        path.write_bytes(good[:cut])
        assert_one_sentence(path)
    refused = 0
    for _ in range(30):
        wrong = bytearray(code)
        wrong[draw.randrange(len(wrong))] ^= 1 << draw.randrange(8)
        path.write_bytes(zipped(bytes(wrong), storages))
        try:
            load(path)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


# --- Networks that lie about themselves


def lies(described: dict) -> dict[str, dict]:
    """Descriptions of our own format, each with one thing wrong."""

    def wrong(*steps: str | int, value: object) -> dict:
        changed = copy.deepcopy(described)
        place = changed
        for step in steps[:-1]:
            place = place[step]
        place[steps[-1]] = value
        return changed

    convolution = described["network"]["parts"]["0"]
    first = ("network", "parts", "0", "parts", "conv", "options")
    deep: dict = {"kind": "Sequential", "options": {}, "parts": {}}
    for _ in range(60):
        deep = {"kind": "Sequential", "options": {}, "parts": {"0": deep}}
    wide = {"kind": "ModuleList", "options": {}, "parts": {}}
    wide["parts"] = {str(i): {"kind": "SiLU", "options": {}, "parts": {}} for i in range(21_000)}
    made = {
        f"{name} is {value}": wrong(*first, name, value=value)
        for name, value in [
            ("kernel_size", [10**9, 10**9]), ("kernel_size", [-3, 3]), ("kernel_size", "3"),
            ("stride", [0, 0]), ("stride", [2, 2, 2, 2]), ("padding", [10**6, 10**6]), ("in_channels", 0),
            ("in_channels", 2**40), ("out_channels", -8), ("out_channels", 65_000), ("groups", 0),
            ("groups", 7), ("dilation", [500, 500]), ("in_channels", 1e308), ("in_channels", None),
            ("padding", {"a": 1}),
        ]
    }  # fmt: skip
    return made | {
        "deep": {**described, "network": deep},
        "wide": {**described, "network": wide},
        "nothing": {**described, "network": {"kind": "Sequential", "options": {}, "parts": {}}},
        "no network": {"labels": ["face"], "size": 256},
        "network of text": {**described, "network": "x"},
        "a kind of number": wrong("network", "parts", "0", "kind", value=7),
        "an unknown kind": wrong("network", "parts", "0", "kind", value="os.system"),
        "a name with dots": wrong("network", "parts", "0", "parts", "a.b", value=convolution),
        "layers from ahead": wrong("network", "parts", "11", "options", "f", value=[-1, 99]),
        "layers from before": wrong("network", "parts", "11", "options", "f", value=[-1, -99]),
        "layers from nowhere": wrong("network", "parts", "11", "options", "f", value=[]),
        "a thousand sources": wrong("network", "parts", "11", "options", "f", value=[0] * 1000),
        "sources of text": wrong("network", "parts", "11", "options", "f", value=["0"]),
        "enlarged endlessly": wrong("network", "parts", "10", "options", "scale_factor", value=65_000),
        "enlarged by nothing": wrong("network", "parts", "10", "options", "scale_factor", value=0),
        "no labels": {**described, "labels": []},
        "too many labels": {**described, "labels": ["face"] * 5},
        "labels of text": {**described, "labels": "face"},
        "bins of nothing": wrong("network", "parts", "22", "options", "reg_max", value=0),
        "no head": wrong("network", "parts", "22", value=convolution),
    }  # fmt: skip


def test_networks_that_lie(tmp_path, plan) -> None:
    described = json.loads(metadata_of(plan)[METADATA_KEY])
    path = tmp_path / "lie.safetensors"
    for what, wrong in lies(described).items():
        path.write_bytes(save(plan.weights, {METADATA_KEY: json.dumps(wrong)}))
        try:
            assert_one_sentence(path)
        except BaseException as error:
            raise AssertionError(what) from error


def test_broken_safetensors(tmp_path, plan) -> None:
    good = save(plan.weights, metadata_of(plan))
    length = struct.unpack("<Q", good[:8])[0]
    broken = {
        "empty": b"",
        "short": good[:4],
        "cut header": good[: length // 2],
        "cut numbers": good[:-1000],
        "longer": good + bytes(1000),
        "a header of 2**60": struct.pack("<Q", 2**60) + good[8:],
        "a header of nothing": struct.pack("<Q", 0) + good[8:],
        "no JSON": good[:8] + b"[" * length + good[8 + length :],
        "offsets that overlap": good.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
        "a pickle": pickle.dumps({"a": 1}),
        "a description that is no JSON": save(plan.weights, {METADATA_KEY: "{" * 50_000}),
        "a description of depth": save(plan.weights, {METADATA_KEY: "[" * 50_000 + "]" * 50_000}),
        "a description of a list": save(plan.weights, {METADATA_KEY: "[]"}),
        "no weights": save({}, metadata_of(plan)),
        "wrong shapes": save({k: v[..., None] for k, v in plan.weights.items()}, metadata_of(plan)),
    }  # fmt: skip
    for what, content in broken.items():
        path = tmp_path / "broken.safetensors"
        path.write_bytes(content)
        try:
            assert_one_sentence(path)
        except BaseException as error:
            raise AssertionError(what) from error


# --- Pictures


_NOISE = torch.rand(90, 90, 4, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize(
    "picture",
    [
        torch.zeros(1, 1, 3), torch.ones(1, 700, 3), torch.ones(700, 1, 3), torch.zeros(64, 64, 3),
        torch.full((64, 64, 3), 1e30), torch.full((64, 64, 3), -5.0), _NOISE[:40, :50],
        _NOISE[..., :3].half(), _NOISE[:80, :60, :3].flip(0), _NOISE[:80, :60, :3].transpose(0, 1),
        torch.full((33, 47, 3), float("inf")), torch.full((33, 47, 3), float("nan")),
    ],
    ids=lambda picture: f"{tuple(picture.shape)} {picture.flatten()[0]:.3g}",
)  # fmt: skip
def test_odd_pictures(plan, picture) -> None:
    """Boxes inside the picture, or one sentence; never another error."""
    detector = YoloDetector("nano", Network(plan))
    try:
        faces = detector.detect(picture, 0.05)
    except ValueError as error:
        assert not torch.isfinite(picture).all() or picture.abs().max() > 1e20, error
        return
    height, width = picture.shape[:2]
    for face in faces:
        x0, y0, x1, y1 = face.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height and 0.05 <= face.score <= 1
