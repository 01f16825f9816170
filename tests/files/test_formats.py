"""Files of every format that was ever written load as they did. Each new format adds its own; none is removed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import tinynet as tn
from tinynet.files.container import FORMAT, read
from tinynet.training.checkpoints import load_checkpoint
from tinynet.trees import leaves_with_paths

FORMATS = Path(__file__).parent / "formats"


def test_each_format_has_its_files():
    for number in range(1, FORMAT + 1):
        for kind in ("network", "checkpoint"):
            assert (FORMATS / f"{number}_{kind}.safetensors").is_file()


@pytest.mark.parametrize("path", sorted(FORMATS.iterdir()), ids=lambda path: path.stem)
def test_each_network_loads_with_the_arrays_that_another_reader_finds(path):
    net, params = tn.load(path)
    raw = load_file(path)
    x = np.ones((2, net.layers[0].n_in), np.float32)
    assert np.isfinite(net.forward(params, x)[0]).all()
    loaded = {re.sub(r'\["?(\w+)"?\]', r".\1", f"params{name}"): array for name, array in leaves_with_paths(params)}
    assert loaded.keys() == {name for name in raw if name.startswith("params.")}
    for name, array in loaded.items():
        assert (array.dtype, array.tobytes()) == (raw[name].dtype, raw[name].tobytes())


def test_format_1_is_rebuilt_whole():
    path = FORMATS / "1_network.safetensors"
    value = read(path)
    assert value["net"] == tn.Sequential(
        tn.Linear(3, 4),
        tn.Sigmoid(),
        tn.Residual(tn.Sequential(tn.Linear(4, 4), tn.Tanh())),
        tn.Linear(4, 2),
        tn.Softmax(),
    )
    extra = value["extra"]
    assert extra["loss"] == tn.SquaredError("mean")
    assert extra["optimizer"] == tn.Adam(tn.Warmup(3, tn.CosineDecay(0.1, 10)))
    assert (extra["classes"], extra["nothing"]) == (["a", "ŷ"], None)
    assert math.isnan(extra["floats"][0])
    assert extra["floats"][1:] == [-math.inf, 0]
    assert math.copysign(1, extra["floats"][2]) == -1
    for name, array in extra["dtypes"].items():
        expected = np.arange(3).astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        assert (array.dtype, array.tolist()) == (expected.dtype, expected.tolist())
    assert (extra["scalar"].shape, float(extra["scalar"])) == ((), 2.5)
    assert extra["empty"].shape == (0, 3)


def test_a_checkpoint_of_another_version_is_refused_as_such_where_it_has_other_fields():
    with pytest.raises(tn.FileError, match=r"holds no checkpoint of this version; tinynet.load reads its network"):
        load_checkpoint(FORMATS / "1_checkpoint.safetensors")


def test_a_newer_format_is_refused_by_name(tmp_path):
    path = tmp_path / "net.safetensors"
    data = (FORMATS / "1_network.safetensors").read_bytes()
    path.write_bytes(data.replace(b'{\\"format\\": 1,', f'{{\\"format\\": {FORMAT + 1},'.encode()))
    with pytest.raises(tn.FileError, match=f"format {FORMAT + 1}; this version .* reads format {FORMAT}; .*newer"):
        tn.load(path)
