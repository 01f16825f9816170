"""The page of a trace, without a browser: its record is the trace's numbers and JAX's, and it needs nothing else."""

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

import tinynet as tn
from tinynet.pages import examples
from tinynet.pages.trace import trace_page

RNG = np.random.default_rng(0)


def record(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture(scope="module")
def mazur_page():
    return trace_page(tn.trace(*examples.mazur()), 0.5, 3)


def test_its_numbers_are_those_of_the_trace_and_of_each_update(mazur_page):
    net, loss, params, x, y = examples.mazur()
    data = record(mazur_page)
    assert len(data["frames"]) == 3
    for frame in data["frames"]:
        trace = tn.trace(net, loss, params, x, y)
        for name in (*trace.names, *trace.parameters, *trace.slopes):
            np.testing.assert_array_equal(frame["values"][name], trace[name])
        _, grads = tn.value_and_grads(net, loss, params, x, y)
        params, _ = tn.SGD(0.5).update(params, grads, ())
        for layer, level in ((0, 1), (2, 2)):
            for key in "Wb":
                np.testing.assert_array_equal(frame["values"][f"{key}{level}+"], params[layer][key])
    assert data["frames"][1]["values"]["E"] < data["frames"][0]["values"]["E"]


def test_the_error_after_one_update_of_the_weights_is_that_of_the_worked_example():
    net, loss, params, x, y = examples.mazur()
    after = record(trace_page(tn.trace(net, loss, params, x, y), 0.5, 1))["frames"][0]["values"]
    hidden, output = (p | {"W": np.array(after[name])} for p, name in ((params[0], "W1+"), (params[2], "W2+")))
    assert f"{tn.trace(net, loss, (hidden, {}, output, {}), x, y)['E']:.9f}" == "0.291027774"


def test_its_exact_gradients_are_those_of_jax_grad(mazur_page):
    net, loss, params, x, y = examples.mazur()
    with jax.enable_x64(True):
        exact = jax.grad(lambda p: loss.forward(net.forward(p, x)[0], y)[0])(params)
    frame = record(mazur_page)["frames"][0]
    for layer, level in ((0, 1), (2, 2)):
        for key in "Wb":
            np.testing.assert_allclose(frame["exact"][f"d{key}{level}"], exact[layer][key], rtol=1e-14)
        np.testing.assert_allclose(frame["exact"][f"δ{level}"][0], exact[layer]["b"], rtol=1e-14)
    assert set(frame["exact"]) == {"∂E/∂a2", "δ2", "dW2", "db2", "∂E/∂a1", "δ1", "dW1", "db1"}
    assert max(frame["worst"].values()) <= 32


class Wrong(tn.Linear):
    def param_grads(self, params, a, dz):
        grads = super().param_grads(params, a, dz)
        return {**grads, "W": 2 * grads["W"]}


def test_a_wrong_gradient_is_far_from_jax():
    net, loss, params, x, y = examples.mazur()
    net = tn.Sequential(Wrong(2, 2), *net.layers[1:])
    worst = record(trace_page(tn.trace(net, loss, params, x, y), 0.5, 1))["frames"][0]["worst"]
    assert {name for name, ulp in worst.items() if ulp > 1e6} == {"dW1"}


def test_the_equations_of_all_sections_are_there(mazur_page):
    numbers = {n for step in record(mazur_page)["steps"] for n in step["numbers"]}
    assert numbers == set(range(1, 27)) - {17}
    of_a_mean = record(trace_page(tn.trace(*examples.xor()), 0.5, 1))
    assert 17 in {n for step in of_a_mean["steps"] for n in step["numbers"]}


def test_wide_layers_fold_and_images_are_heat_maps():
    net = tn.Sequential(tn.Conv2d(1, 2, 3), tn.ReLU(), tn.Flatten(), tn.Linear(32, 10))
    params = net.init(RNG, np.float64)
    trace = tn.trace(net, tn.SoftmaxCrossEntropy(), params, RNG.normal(size=(6, 1, 6, 6)), np.eye(10)[:6])
    data = record(trace_page(trace, 0.1, 1))
    frame, tensors = data["frames"][0], data["tensors"]
    assert tensors["W2"]["columns"] == [0, 1, 2, 3, 4, 30, 31]
    shown = np.ix_(tensors["W2"]["rows"], tensors["W2"]["columns"])
    np.testing.assert_array_equal(frame["values"]["W2"]["folded"], params[3]["W"][shown])
    assert tensors["z1"]["kind"] == "map"
    assert [m["shape"] for m in frame["values"]["z1"]] == [[2, 4, 4]] * 4
    assert frame["values"]["W2"]["heat"]["limit"] == np.abs(params[3]["W"]).max()
    assert max(frame["worst"].values()) <= 32


def test_the_page_shows_a_composite_as_one_layer():
    net = tn.Sequential(tn.Linear(4, 4), tn.Residual(tn.MultiHeadAttention(4, 2)))
    rng = np.random.default_rng(1)
    x, params = rng.normal(size=(2, 3, 4)), net.init(rng, np.float64)
    data = record(trace_page(tn.trace(net, tn.SquaredError(), params, x, x), 0.1, 2))
    assert [step["name"] for step in data["steps"]][:4] == ["a0", "z1", "z2", "E"]
    assert data["attention"] == []
    assert max(frame["worst"][name] for frame in data["frames"] for name in frame["worst"]) <= 64


@dataclass(frozen=True)
class Hostile(tn.Layer):
    text: str = "</script><script>alert(1)</script>"

    def forward(self, params, x):
        return np.asarray(x) * 1.0, None

    def backward(self, params, cache, dy):
        return dy, {}


def test_what_a_layer_is_called_cannot_leave_the_record_and_a_network_that_jax_cannot_trace_says_so():
    page = trace_page(
        tn.trace(
            tn.Sequential(tn.Linear(2, 2), Hostile()),
            *examples.mazur()[1:2],
            (examples.mazur()[2][0], {}),
            *examples.mazur()[3:],
        ),
        0.5,
        1,
    )
    data = record(page)
    assert "</script><script>alert" in data["network"][1]
    assert page.count("<script") == 2
    assert data["remark"].startswith("jax.grad cannot trace this network: TracerArrayConversionError")
    assert data["frames"][0]["exact"] == {}


class Links(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src", "action")]


def test_it_is_one_small_file_that_needs_nothing_else(mazur_page, tmp_path):
    trace = tn.trace(*examples.mazur())
    trace.to_html(tmp_path / "page.html", steps=20)
    film = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(film.encode()) <= 200_000
    for page in (film, mazur_page):
        assert Links(page).found == []
        assert "@import" not in page
        assert "default-src 'none'" in page
        assert not re.search(r"\{\{\w+\}\}", page)


class Masked(tn.Linear):
    """Linear with a mask beside the input, as recurrent layers and attention have."""

    def forward(self, params, x):
        x, mask = x
        return super().forward(params, x * mask[:, None])

    def backward(self, params, a, dz):
        dx, dparams = super().backward(params, a, dz)
        return (dx, None), dparams


def test_of_several_inputs_the_first_is_shown():
    net, x = Masked(3, 2), (RNG.normal(size=(4, 3)), np.array([1, 0, 1, 1]))
    trace = tn.trace(net, tn.SquaredError(), net.init(RNG, np.float64), x, np.ones((4, 2)))
    data = record(trace_page(trace, 0.5, 1))
    np.testing.assert_array_equal(data["frames"][0]["values"]["a0"], x[0])
    assert max(data["frames"][0]["worst"].values()) <= 32
    assert "a⁰ = x" in str(trace)


def test_state_is_read_and_the_gradients_are_those_of_jax():
    net = tn.Sequential(tn.Linear(3, 4), tn.BatchNorm(4), tn.Tanh(), tn.Linear(4, 2))
    state = ({}, {"mean": RNG.normal(size=4), "var": RNG.uniform(1, 2, 4)}, {}, {})
    params, x, y = net.init(RNG, np.float64), RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))
    data = record(trace_page(tn.trace(net, tn.SquaredError(), params, x, y, state=state), 0.1, 2))
    assert data["remark"] == ""
    assert max(data["frames"][1]["worst"].values()) <= 32


def test_several_outputs_without_a_target_are_shown():
    net, x = tn.Sequential(tn.Shared(tn.Linear(3, 2)), tn.Shared(tn.Tanh())), (RNG.normal(size=(4, 3)),) * 2
    trace = tn.trace(net, tn.InfoNCE(), net.init(RNG, np.float64), x, None)
    data = record(trace_page(trace, 0.5, 1))
    assert data["remark"] == ""
    assert max(data["frames"][0]["worst"].values()) <= 32


def test_bad_arguments_are_named_and_nothing_is_written(tmp_path):
    trace = tn.trace(*examples.mazur())
    with pytest.raises(ValueError, match=r"to_html: steps is 0"):
        trace.to_html(tmp_path / "page.html", steps=0)
    with pytest.raises(ValueError, match=r"lr is -1"):
        trace.to_html(tmp_path / "page.html", lr=-1.0)
    assert list(tmp_path.iterdir()) == []


def test_parameters_in_float32_and_labels_without_a_column_are_shown():
    net = tn.Sequential(tn.Embedding(5, 3), tn.Flatten(), tn.Linear(6, 2))
    params = net.init(RNG)
    trace = tn.trace(net, tn.SoftmaxCrossEntropy(), params, np.array([[0, 1], [4, 4]]), np.eye(2, dtype=np.float32))
    data = record(trace_page(trace, 0.5, 1))
    assert data["frames"][0]["values"]["W2"][0][0] == float(str(params[2]["W"][0, 0]))
    assert max(data["frames"][0]["worst"].values()) <= 32
