"""Saving and loading: what comes back is what went in, bit for bit, and nothing else ever does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from enum import Enum
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

import tinynet as tn
from tinynet.files import container as files
from tinynet.files.container import read, write
from tinynet.files.encoding import MAX_DEPTH, decode, encode
from tinynet.trees import leaves_with_paths

NET = tn.Sequential(tn.Linear(4, 6), tn.Sigmoid(), tn.Sequential(tn.Linear(6, 3), tn.Sigmoid()))
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def params(dtype=np.float32):
    return NET.init(np.random.default_rng(0), dtype)


def assert_same(got, expected):
    """Same structure, dtypes and bits, −0.0 and NaN included."""
    got, expected = list(leaves_with_paths(got)), list(leaves_with_paths(expected))
    assert [path for path, _ in got] == [path for path, _ in expected]
    for (_, g), (_, e) in zip(got, expected, strict=True):
        if not isinstance(e, np.ndarray):
            assert type(g) is type(e)
            assert g == e or (g != g and e != e)
            continue
        e = e.astype(e.dtype.newbyteorder("="))
        assert (g.dtype, g.shape, g.tobytes()) == (e.dtype, e.shape, e.tobytes())
        assert g.flags.c_contiguous
        assert g.flags.writeable


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_a_network_and_its_parameters_come_back(path, dtype):
    tn.save(path, NET, params(dtype))
    net, loaded = tn.load(path)
    assert net == NET
    assert_same(loaded, params(dtype))
    asarray = jnp.asarray if dtype == ml_dtypes.bfloat16 else np.asarray  # of which NumPy has no arithmetic
    x = asarray(np.random.default_rng(1).normal(size=(5, 4)).astype(dtype))
    assert np.array_equal(net.forward(loaded, x)[0], NET.forward(params(dtype), x)[0])


def test_bfloat16_is_read_by_a_process_that_has_not_heard_of_it(path):
    tn.save(path, NET, params(ml_dtypes.bfloat16))
    code = "import sys, tinynet as tn; print(tn.load(sys.argv[1])[1][0]['W'].dtype, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "bfloat16 False\n", done.stderr


LAYOUTS = {
    "transposed": lambda W: W.T.copy().T,
    "Fortran": np.asfortranarray,
    "strided": lambda W: np.repeat(W, 3, axis=0)[::3],
    "strided columns": lambda W: np.repeat(W, 2, axis=1)[:, ::2],
    "reversed": lambda W: W[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": lambda W: np.broadcast_to(W[:1], W.shape),
    "big-endian": lambda W: W.astype(W.dtype.newbyteorder(">")),
    "big-endian and transposed": lambda W: W.T.astype(W.dtype.newbyteorder(">")).T,
    "read-only": lambda W: np.frombuffer(W.tobytes(), W.dtype).reshape(W.shape),
    "jax": jnp.asarray,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_array_of_any_layout_keeps_its_values(path, layout):
    layer = tn.Linear(4, 3)
    W = LAYOUTS[layout](layer.init(np.random.default_rng(0))["W"])
    expected = np.array(W.tolist(), np.float32)
    tn.save(path, layer, {"W": W, "b": np.zeros(3, np.float32)})
    _, loaded = tn.load(path)
    assert loaded["W"].dtype == np.float32
    assert np.array_equal(loaded["W"], expected)
    # and for a reader that knows nothing of tinynet
    assert np.array_equal(load_file(path)["params.W"], expected)


keys = st.text(max_size=5)
arrays = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    scalars | arrays,
    lambda part: (
        st.lists(part, max_size=3) | st.lists(part, max_size=3).map(tuple) | st.dictionaries(keys, part, max_size=3)
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=100, deadline=None)
def test_any_tree_comes_back(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree"
    write(path, tree)
    assert_same(read(path), tree)


def test_values_nest_as_deep_as_is_said(path):
    tree = 1.5
    for _ in range(MAX_DEPTH):
        tree = [tree]
    write(path, tree)
    assert read(path) == tree
    with pytest.raises(ValueError, match=f"nested deeper than {MAX_DEPTH}"):
        write(path, [tree])


def test_what_was_read_elsewhere_needs_no_file(path):
    write(path, {"a": np.arange(3), "b": 1})
    data = path.read_bytes()
    path.unlink()
    assert_same(read(path, data), {"a": np.arange(3), "b": 1})


class Mode(Enum):
    SAME = 1
    VALID = 2


def twice(x):
    return 2 * x


@dataclasses.dataclass(frozen=True)
class Mine(tn.Layer):
    """A user's layer with fields of every kind."""

    sizes: tuple[int, ...]
    mode: Mode = Mode.SAME
    rate: float = 0.5
    name: str = "mine"
    inner: tn.Layer | None = None
    f: object = twice

    def init(self, rng, dtype=np.float32):
        return {"w": np.ones(self.sizes, dtype)}

    def forward(self, params, x):
        return x * params["w"], x

    def backward(self, params, x, dy):
        raise NotImplementedError


def test_a_users_layer_is_rebuilt_from_the_class_that_is_handed_over(path):
    layer = Mine((2, 3), Mode.VALID, float("inf"), "Ünï", tn.Sequential(tn.Sigmoid()))
    tn.save(path, layer, {"w": np.ones((2, 3))})
    assert tn.load(path, classes=[Mine, Mode, twice])[0] == layer
    with pytest.raises(tn.FileError, match=r"net\.safetensors: net: 'Mine' is not one of tinynet's; .* classes="):
        tn.load(path)
    with pytest.raises(tn.FileError, match="'twice' is not one of tinynet's"):
        tn.load(path, classes=[Mine, Mode])


def test_every_public_class_with_fields_is_known_by_its_name():
    from tinynet.files.encoding import known_names

    public = {name: getattr(tn, name) for name in tn.__all__ if isinstance(getattr(tn, name), type)}
    kinds = (tn.Layer, tn.Loss, tn.Optimizer)
    expected = {name for name, thing in public.items() if issubclass(thing, kinds) and thing not in kinds}
    assert expected <= known_names().keys()
    assert expected >= {"Linear", "Sigmoid", "Sequential", "SquaredError", "SGD"}


def test_extras_travel_with_the_network(path):
    extra = {"loss": tn.SquaredError("mean"), "optimizer": tn.SGD(0.1, 0.9), "classes": ["a", "b"], "mean": np.ones(4)}
    tn.save(path, NET, params(), extra=extra)
    loaded = read(path)["extra"]
    assert_same(loaded.pop("mean"), extra.pop("mean"))
    assert loaded == extra


def test_the_same_value_gives_the_same_bytes_in_every_process(path):
    code = (
        "import sys, numpy as np, tinynet as tn\n"
        "net = tn.Linear(3, 2)\n"
        "tn.save(sys.argv[1], net, net.init(np.random.default_rng(0)), extra={'b': 1, 'a': np.ones(2)})\n"
    )
    contents = set()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, path], check=True, cwd=REPOSITORY)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_what_cannot_be_read_again_is_not_written(path):
    @dataclasses.dataclass(frozen=True)
    class Linear(tn.Layer):
        forward = backward = None

    @dataclasses.dataclass(frozen=True)
    class Doubling(tn.Layer):
        n: int
        forward = backward = None

        def __post_init__(self):
            object.__setattr__(self, "n", 2 * self.n)

    @dataclasses.dataclass(frozen=True)
    class Undrawn(tn.Layer):
        f: object
        forward = backward = None

    deep = tn.Sigmoid()
    for _ in range(70):
        deep = tn.Sequential(deep)
    cyclic = []
    cyclic.append(cyclic)
    for value, error, message in [
        (Linear(), ValueError, 'shares its name "Linear"'),
        (Doubling(2), ValueError, "cannot be rebuilt from its fields"),
        (Undrawn(lambda x: x), TypeError, "no name by which it could be found again"),
        (Undrawn(np.tanh), TypeError, "is a ufunc; expected arrays, numbers"),
        (deep, ValueError, "nested deeper than 64"),
        (cyclic, ValueError, "nested deeper than 64"),
        ({"a": {1: 2}}, TypeError, "a: a dict has the key 1; expected strings"),
        ({"a": np.array([None])}, TypeError, "a: an array has dtype object; expected one of float16"),
        (np.ones(1, np.complex64), TypeError, "dtype complex64"),
        (np.ones(1, np.longdouble), TypeError, "an array has dtype"),
        ({"a": 1 + 2j}, TypeError, r"a: \(1\+2j\) is a complex; expected"),
        ({f"{i:0>9000}": np.zeros(1) for i in range(500)}, ValueError, "can be read again"),
    ]:
        with pytest.raises(error, match=message):
            write(path, value)
    for net, p, error, message in [
        (tn.Linear, {}, TypeError, r"save: net is the class .*; expected an instance of tinynet\.Layer"),
        (NET, None, TypeError, "save: params is None; expected a tuple of 3"),
        (NET, params()[:2], ValueError, "save: params has 2 entries; expected 3"),
        (
            NET,
            tn.Sequential(*NET.layers[::-1]).init(np.random.default_rng()),
            (TypeError, ValueError),
            r"save: params\[0\]",
        ),
        (tn.Linear(4, 3), {"W": np.ones((4, 3)), "b": np.ones(3)}, ValueError, r'params\["W"\] has shape \(4, 3\)'),
    ]:
        with pytest.raises(error, match=message):
            tn.save(path, net, p)
    assert os.listdir(path.parent) == []


def test_classes_handed_over_are_checked(path):
    class Linear(tn.Linear):
        pass

    tn.save(path, NET, params())
    with pytest.raises(TypeError, match="classes: 'Mine' is not a dataclass"):
        tn.load(path, classes=["Mine"])
    with pytest.raises(ValueError, match='classes: two are named "Linear"; rename yours'):
        tn.load(path, classes=[Linear])


def forge(path, document, arrays=None):
    """A file with any document, signed as tinynet signs it."""
    path.write_bytes(b"".join(files._pack(document, arrays or {})))


def test_damage_is_named(path):
    tn.save(path, NET, params())
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little") + 8
    swapped = json.loads(good[8:header])
    swapped["params.0.W"], swapped["params.2.0.W"] = swapped["params.2.0.W"], swapped["params.0.W"]
    for data, message in [
        (b"", "not a safetensors file, or cut off"),
        (good[:-1], "cut off"),
        (good[:100], "cut off"),
        (good + b"\0", "not a safetensors file"),
        (good[:-1] + bytes([good[-1] ^ 1]), "the checksum differs: the file was altered"),
        (b"PK\x03\x04" + good, "claims|cut off"),
        ((2**22 + 1).to_bytes(8, "little") + bytes(2**22 + 1), "at most 4194304 are read"),
        (good.replace(b'\\"n_in\\": 4', b'\\"n_in\\": 5'), "the checksum differs"),
        (good.replace(b'{\\"format\\": 1,', b'{\\"format\\": 2,'), "format 2; this version of tinynet reads format 1"),
    ]:
        path.write_bytes(data)
        with pytest.raises(tn.FileError, match=message) as caught:
            tn.load(path)
        assert str(caught.value).startswith(str(path))
        assert caught.value.path == path
        assert isinstance(caught.value, ValueError)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as from a worker process


def test_a_foreign_file_is_named(path):
    save_file({"W": np.ones(3)}, path)
    with pytest.raises(tn.FileError, match="a file that tinynet did not write"):
        tn.load(path)
    write(path, {"W": np.ones(3)})
    with pytest.raises(tn.FileError, match="holds no network"):
        tn.load(path)
    np.savez(path.with_suffix(".npz"), W=np.ones(3))
    with pytest.raises(tn.FileError):
        tn.load(path.with_suffix(".npz"))
    with pytest.raises(tn.FileError, match="not a regular file"):
        tn.load(path.parent)
    with pytest.raises(tn.FileError, match="not a regular file"):
        tn.load("/dev/zero")
    os.mkfifo(path.with_name("pipe"))
    with pytest.raises(tn.FileError, match="not a regular file"):
        tn.load(path.with_name("pipe"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tn.load(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"object": ["os.system", {"command": "true"}]}, "'os.system' is not one of tinynet's"),
        ({"object": ["Layer", {}]}, "'Layer' is not one of tinynet's"),
        ({"object": ["Linear", {"n_in": 10**18, "n_out": 10**18}]}, "params.* too large|do not fit"),
        ({"object": ["Linear", {"n_in": 2**19, "n_out": 2**19}]}, "its parameters do not fit its network"),
        ({"object": ["Linear", {"n_in": -1, "n_out": 3}]}, "net: Linear: n_in is -1; expected at least 1"),
        ({"object": ["Linear", {"n_in": 1}]}, "net: .*missing .*n_out"),
        ({"object": ["Linear", {"n_in": 1, "n_out": 1, "rm": 1}]}, "net: Linear has no field 'rm'"),
        ({"object": ["SGD", {"lr": 10**400}]}, "net: int too large"),
        ({"object": ["SGD", {"lr": 0.1}]}, "holds no network"),
        ({"object": ["glorot_uniform", {}]}, "stands for another kind of thing"),
        ({"object": ["Sequential", {"layers": 5}]}, "net: .*not iterable|net: "),
        ({"object": ["Sequential", {"layers": {"tuple": ["x"]}}]}, "net: Sequential: argument 0 is str"),
        ({"array": "nothing"}, "is not a value"),
        ({"float": "1"}, "is not a value"),
        ({"dict": []}, "is not a value"),
        ({"a": 1, "b": 2}, "is not a value"),
        ({}, "is not a value"),
        (float("nan"), "NaN, which is not JSON"),
    ],
    ids=str,
)
def test_a_signed_file_with_a_hostile_document_is_refused(path, document, message):
    forge(path, {"dict": {"net": document, "params": {"dict": {}}}})
    with pytest.raises(tn.FileError, match=message):
        tn.load(path)


def test_hostile_arrays_are_refused(path):
    one = {"object": ["Linear", {"n_in": 1, "n_out": 1}]}
    twice = {"dict": {"W": {"array": "params.W"}, "b": {"array": "params.W"}}}
    forge(path, {"dict": {"net": one, "params": twice}}, {"params.W": np.ones((1, 1))})
    with pytest.raises(tn.FileError, match="is not a value"):
        tn.load(path)
    forge(path, {"dict": {"net": {"object": ["Sigmoid", {}]}, "params": {"dict": {}}}}, {"stowaway": np.ones(3)})
    with pytest.raises(tn.FileError, match="'stowaway' belongs to nothing"):
        read(path)
    forge(path, {"dict": {"net": one, "params": {"dict": {"W": {"array": "params.W"}}}}}, {"params.W": np.ones((1, 1))})
    with pytest.raises(tn.FileError, match="its parameters do not fit its network"):
        tn.load(path)


def test_keys_that_stand_twice_and_deep_nesting_are_refused(path):
    def raw(header):
        text = header.encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)

    raw('{"__metadata__": {"tinynet": "{}"}, "__metadata__": {"tinynet": "{}"}}')
    with pytest.raises(tn.FileError, match="a key stands twice"):
        tn.load(path)
    for depth in (100, 1_000_000):
        raw(json.dumps({"__metadata__": {"tinynet": '{"content": ' + "[" * depth + "]" * depth + "}"}}))
        with pytest.raises(tn.FileError):
            tn.load(path)
        raw("[" * depth)
        with pytest.raises(tn.FileError):
            tn.load(path)
    deep = {"dict": {}}
    for _ in range(65):
        deep = {"tuple": [deep]}
    forge(path, deep)
    with pytest.raises(tn.FileError, match="nested deeper than 64"):
        tn.load(path)


def test_a_file_cannot_write_to_the_terminal(path):
    """No control character of a file, nor one that turns the direction of writing, is in a message."""
    hostile, told = "\x1b]0;owned\x07\x1b[2J\u202e\r", []
    for document in (
        {"object": [hostile, {}]},
        {"object": ["Linear", {hostile: 1}]},
        {"object": ["Raw", {"text": hostile}]},
        {hostile: 1, "b": 2},
        {"enum": ["Mode", hostile]},
    ):
        forge(path, {"dict": {"net": document, "params": {"dict": {}}}})
        with pytest.raises(tn.FileError) as caught:
            tn.load(path, classes=[Raw, Mode])
        told.append(str(caught.value))
    assert all(text.isprintable() for text in told)
    assert any(r"\x1b]0;owned\x07" in text for text in told)


def test_what_a_terminal_prints_is_told_as_it_is(path):
    for text in ("ŷ = W·x, «é» 神经", "C:\\temp 'a' \"b\""):
        assert str(tn.FileError(path, text)) == f"{path}: {text}"


@dataclasses.dataclass(frozen=True)
class Raw(tn.Layer):
    """A user's layer that puts a text of the file into a message as it is."""

    text: str

    def __post_init__(self):
        raise ValueError(self.text)

    forward = backward = None


@contextlib.contextmanager
def at_most(size):
    """Assert that no more than `size` bytes are allocated at a time."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= size


def test_a_header_is_refused_before_what_follows_it_is_read(path):
    """Files of 2 GB that take no room on the disk."""
    good = tn.Linear(1, 1)
    tn.save(path, good, good.init(np.random.default_rng(0)))
    for start, message in [
        (path.read_bytes(), "cut off"),
        (b"", "lack the network|not a safetensors|Expecting value"),
        ((2**30).to_bytes(8, "little"), "at most 4194304 are read"),
        ((2**63).to_bytes(8, "little"), "not a safetensors file"),
    ]:
        path.write_bytes(start)
        os.truncate(path, 2**31)
        with pytest.raises(tn.FileError, match=message), at_most(2**20):
            tn.load(path)


def test_a_network_is_loaded_from_its_own_arrays_and_without_the_classes_of_the_rest(path):
    @dataclasses.dataclass(frozen=True)
    class Strange:
        a: int

    tn.save(path, NET, params(), extra={"mine": Strange(1), "array": np.ones(3)})
    net, loaded = tn.load(path)
    assert net == NET
    assert_same(loaded, params())
    with pytest.raises(tn.FileError, match="'Strange' is not one of tinynet's"):
        read(path)
    assert read(path, classes=[Strange])["extra"]["mine"] == Strange(1)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(tn.FileError, match="checksum"):
        tn.load(path)


@pytest.mark.parametrize("layer", [tn.Linear, tn.Conv2d, tn.Embedding], ids=lambda layer: layer.__name__)
def test_shapes_of_any_size_are_compared_without_memory(path, layer):
    n = 2**19
    document = encode(layer(n, n, *([3] if layer is tn.Conv2d else [])))[0]
    forge(path, {"dict": {"net": document, "params": {"dict": {}}}})
    with pytest.raises(tn.FileError, match="its parameters do not fit its network"), at_most(2**23):
        tn.load(path)


def test_an_array_is_read_into_its_own_memory_and_one_at_a_time(path):
    write(path, {f"a{i}": np.zeros(2**18) for i in range(8)})  # 2 MiB each
    with at_most(17 * 2**20):
        assert len(read(path)) == 8
    with at_most(7 * 2**20):
        assert read(path, only=("a3",))["a3"].nbytes == 2**21


def test_names_of_arrays_stay_short_however_many_paths_are_one_text(path):
    """`{"a.a": …}` and `{"a": {"a": …}}`: a file that holds thousands of these costs no more than it is long."""
    tree, n = 1.0 * np.arange(1), 12
    for _ in range(n):
        tree = {"a": tree, "a.a": tree}
    document, arrays = encode(tree)
    assert len(arrays) == 2**n
    assert max(map(len, arrays)) < 2 * 2 * n + 10
    assert decode(document, arrays, {})["a.a"].keys() == {"a", "a.a"}


def test_300_altered_files_do_no_harm():
    command = [sys.executable, "scripts/fuzz_files.py", "--count", "300", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 files, seed 7: 0 failures" in done.stdout


def test_importing_tinynet_imports_neither_safetensors_nor_jax():
    code = "import sys, tinynet; print(sorted({'jax', 'safetensors', 'torch', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


def test_arrays_begin_at_a_multiple_of_8_bytes_whatever_the_header_is(path):
    for length in range(8):
        write(path, {"n" * (length + 1): np.arange(3.0)})
        (header,) = np.frombuffer(path.read_bytes()[:8], "<u8")
        assert header % 8 == 0


def test_an_array_begins_at_a_multiple_of_the_size_of_its_numbers(path):
    write(
        path, {"a": np.zeros(3, np.int8), "b": np.zeros(1), "c": np.zeros(5, np.float16), "d": np.zeros(3, np.float32)}
    )
    data = path.read_bytes()
    start = int.from_bytes(data[:8], "little") + 8
    entries = json.loads(data[8:start])
    sizes = {"a": 1, "b": 8, "c": 2, "d": 4}
    assert [(start + entries[name]["data_offsets"][0]) % size for name, size in sizes.items()] == [0] * 4


def test_arrays_of_the_other_byte_order_come_back_in_that_of_this_machine(path):
    other = np.arange(3.0).astype(np.dtype(np.float64).newbyteorder("S"))
    write(path, {"a": other})
    np.testing.assert_array_equal(read(path)["a"], np.arange(3.0))
    np.testing.assert_array_equal(load_file(path)["a"], np.arange(3.0))
