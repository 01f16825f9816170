"""A summary counts what can be counted by hand; a trace holds the document's quantities, equal to jax.grad's."""

import os
import subprocess
import sys
from dataclasses import dataclass

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.gradient_check import ulps
from tinynet.inspection import history_table
from tinynet.trees import leaves
from tinynet.verification.tolerance import K

# M. Mazur, A step by step backpropagation example, 2015: 2-2-2 sigmoid, one sample, E = ½ Σ (ŷ − y)².
NET = tn.Sequential(tn.Linear(2, 2), tn.Sigmoid(), tn.Linear(2, 2), tn.Sigmoid())
PARAMS = (
    {"W": np.array([[0.15, 0.20], [0.25, 0.30]]), "b": np.full(2, 0.35)},
    {},
    {"W": np.array([[0.40, 0.45], [0.50, 0.55]]), "b": np.full(2, 0.60)},
    {},
)
X, Y = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])


def test_equals_a_published_worked_example():
    trace = tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)
    published = {
        "z1": [[0.3775, 0.3925]],
        "a1": [[0.593269992, 0.596884378]],
        "z2": [[1.105905967, 1.224921404]],
        "a2": [[0.75136507, 0.772928465]],
        "E": 0.298371109,
        "∂E/∂a2": [[0.74136507, -0.217071535]],
        "δ2": [[0.138498562, -0.038098236]],
        "dW2": [[0.082167041, 0.08266763], [-0.02260254, -0.022740242]],
        "∂E/∂a1": [[0.036350306, 0.041370323]],
        "δ1": [[0.008771354, 0.009954255]],
        "dW1": [[0.000438568, 0.000877135], [0.000497713, 0.000995425]],
    }
    for name, value in published.items():
        np.testing.assert_allclose(trace[name], value, atol=6e-9)
    assert trace.names == ("a0", *list(published)[:8], "db2", "∂E/∂a1", "δ1", "dW1", "db1")


def test_the_equations_are_the_documents():
    text = str(tn.trace(NET, tn.SquaredError(), PARAMS, X, Y))
    for line in (
        "z² = W² a¹ + b²  (18)       [[1.10591 1.22492]]",
        "a² = f(z²)  (19)            [[0.75137 0.77293]]",
        "E = ½ Σ (ŷ − y)²  (4)       0.29837",
        "δ² = ∂E/∂a² ⊗ f′(z²)  (20)  [[ 0.1385 -0.0381]]",
        "dW² = δ² (a¹)ᵀ  (24)        [[ 0.08217  0.08267]\n                             [-0.0226  -0.02274]]",
        "∂E/∂a¹ = W²ᵀ δ²  in (22)    [[0.03635 0.04137]]",
    ):
        assert line in text
    assert str(next(iter(tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)))) == "a⁰ = x  [[0.05 0.1 ]]"


def test_ascii_names_and_wrong_names():
    trace = tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)
    assert trace["delta2"] is trace["δ2"]
    assert trace["dE/da1"] is trace["∂E/∂a1"]
    with pytest.raises(KeyError, match=r"'z9' is not a quantity; expected one of a0, z1"):
        trace["z9"]


def test_any_network_is_traced_and_its_gradients_are_those_of_value_and_grads():
    net = tn.Sequential(
        tn.Conv2d(1, 3, 3, padding=1),
        tn.ReLU(),
        tn.MaxPool2d(2),
        tn.Residual(tn.Sequential(tn.Conv2d(3, 3, 1), tn.Tanh())),
        tn.Sequential(tn.Flatten(), tn.Linear(12, 4)),
    )
    rng = np.random.default_rng(0)
    params, x, y = net.init(rng, np.float64), rng.normal(size=(5, 1, 4, 4)), np.eye(4)[[0, 1, 2, 3, 0]]
    loss = tn.SoftmaxCrossEntropy("mean")
    trace = tn.trace(net, loss, params, x, y)
    E, grads = tn.value_and_grads(net, loss, params, x, y)
    assert trace["E"] == E
    named = ["dW1", "db1", "d0.W2", "d0.b2", "dW3", "db3"]
    for name, grad in zip(named, leaves(grads), strict=True):
        assert ulps(trace[name], grad) <= K
    assert {"z1", "a1", "a1′", "z2", "a2", "z3", "δ1", "∂E/∂a1", "∂E/∂a1′", "δ2", "δ3"} < set(trace.names)
    assert trace["δ1"].shape == trace["z1"].shape
    assert "z¹ = Conv2d(a⁰)" in str(trace)
    assert "5 × 3 × 4 × 4, from" in str(trace)


def test_a_single_layer_is_a_network():
    trace = tn.trace(tn.Linear(2, 2), tn.SquaredError("mean"), PARAMS[0], X, Y)
    assert trace.names == ("a0", "z1", "E", "δ1", "dW1", "db1")


def test_parameters_and_slopes_have_names_too():
    trace = tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)
    assert trace["W2"] is PARAMS[2]["W"]
    np.testing.assert_allclose(trace["f'(z2)"], trace["a2"] * (1 - trace["a2"]), rtol=1e-15)
    np.testing.assert_allclose(trace["δ2"], trace["dE/da2"] * trace["f′(z2)"], rtol=1e-15)


def test_a_layer_with_state_is_traced_as_it_evaluates_and_as_it_trains():
    rng = np.random.default_rng(0)
    inner = tn.Sequential(tn.BatchNorm(3), tn.Tanh())
    net = tn.Sequential(tn.Linear(2, 3), inner, tn.Residual(tn.BatchNorm(3)), tn.Linear(3, 1))
    params = net.init(rng, np.float64)
    of_batch_norm = {"mean": rng.normal(size=3), "var": rng.uniform(1, 2, 3)}
    state = ({}, (of_batch_norm, {}), of_batch_norm, {})
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(5, 1))
    for traced, its_state in ((net, state), (net.sample(rng), None)):
        trace = tn.trace(traced, tn.SquaredError(), params, x, y, state=its_state)
        E, grads = tn.value_and_grads(traced, tn.SquaredError(), params, x, y, state=its_state)
        assert trace["E"] == E
        np.testing.assert_allclose(trace["dgamma2"], grads[1][0]["gamma"])
        np.testing.assert_allclose(trace["dgamma3"], grads[2]["gamma"])
    evaluated = tn.trace(net, tn.SquaredError(), params, x, y, state=state)
    z1 = x @ params[0]["W"].T + params[0]["b"]
    np.testing.assert_allclose(evaluated["z2"], (z1 - of_batch_norm["mean"]) / np.sqrt(of_batch_norm["var"] + 1e-5))
    with pytest.raises(ValueError, match="forward has no state; hand it over as state="):
        tn.trace(net, tn.SquaredError(), params, x, y)


@dataclass(frozen=True)
class Gate(tn.Layer):
    """y = f(x) ⊗ g(x), a composite of a user's own."""

    f: tn.Layer
    ways: tuple[tn.Layer, ...]

    def forward(self, params, x):
        a, of_f = self.f.forward(params["f"], x)
        b, of_g = self.ways[0].forward(params["ways"][0], x)
        return a * b, (a, of_f, b, of_g)

    def backward(self, params, cache, dy):
        a, of_f, b, of_g = cache
        dx, df = self.f.backward(params["f"], of_f, dy * b)
        dx_g, dg = self.ways[0].backward(params["ways"][0], of_g, dy * a)
        return dx + dx_g, {"f": df, "ways": (dg,)}


def test_the_layers_inside_composites_have_their_outputs_and_errors():
    chain = tn.Sequential(tn.Linear(3, 3), tn.Tanh())
    net = tn.Sequential(tn.Linear(2, 3), tn.Sequential(Gate(chain, (tn.Residual(tn.Linear(3, 3)),))), tn.Tanh())
    rng = np.random.default_rng(0)
    params, x, y = net.init(rng, np.float64), *rng.normal(size=(2, 5, 3))
    trace = tn.trace(net, tn.SquaredError(), params, x[:, :2], y)
    inside = [q for q in trace if q.rule == "inside"]
    forward = ["y[1.0.f.0]", "y[1.0.f.1]", "y[1.0.ways.0.f]", "y[1.0.ways.0]"]
    assert [q.name for q in inside] == [*forward, *(f"∂E/∂{name}" for name in reversed(forward))]
    assert [str(q.factors) for q in inside[:4]] == ["('z1',)", "('y[1.0.f.0]',)", "('z1',)", "('z1',)"]
    assert "y[1.0.f.1] = Tanh(y[1.0.f.0])" in str(trace)
    own = params[1][0]

    def E(nudges):
        tanh = jax.numpy.tanh
        z1 = x[:, :2] @ params[0]["W"].T + params[0]["b"]
        u = z1 @ own["f"][0]["W"].T + own["f"][0]["b"] + nudges[0]
        v = z1 @ own["ways"][0]["W"].T + own["ways"][0]["b"] + nudges[2]
        values = u, tanh(u) + nudges[1], v, z1 + v + nudges[3]
        return ((tanh(values[1] * values[3]) - y) ** 2).sum() / 2, values

    with jax.enable_x64(True):
        errors, values = jax.grad(E, has_aux=True)([np.zeros((5, 3))] * 4)
    for name, value, error in zip(forward, values, errors, strict=True):
        np.testing.assert_allclose(trace[name], value, rtol=1e-12)
        np.testing.assert_allclose(trace[f"dE/d{name}"], error, rtol=1e-12)


def test_a_layer_that_is_called_twice_has_two_outputs_and_attention_inside_another_its_weights():
    rng = np.random.default_rng(0)
    shared, pair = tn.Shared(tn.Linear(3, 3)), tuple(rng.normal(size=(2, 4, 3)))
    params = shared.init(rng, np.float64)
    trace = tn.trace(shared, tn.InfoNCE(), params, pair, None)
    for name, x in zip(("y[f]", "y[f]′"), pair, strict=True):
        np.testing.assert_array_equal(trace[name], x @ params["W"].T + params["b"])
        assert trace[f"∂E/∂{name}"].shape == (4, 3)
    attention, x = tn.MultiHeadAttention(4, 2), rng.normal(size=(3, 5, 4))
    params = attention.init(rng, np.float64)
    net = tn.Sequential(tn.Residual(attention))
    inside = tn.trace(net, tn.SquaredError(), (params,), x, x)
    alone = tn.trace(attention, tn.SquaredError(), params, x, x)
    np.testing.assert_array_equal(inside["P[0.f]"], alone["P1"])


@dataclass(frozen=True)
class Scale(tn.Layer):
    """y = 2 x, a layer of a user's own."""

    def forward(self, params, x):
        return 2 * x, None

    def backward(self, params, cache, dy):
        return 2 * dy, {}


@pytest.mark.parametrize(
    ("layer", "is_entrywise"),
    [(tn.Tanh(), True), (tn.GELU(), True), (Scale(), True), (tn.Softmax(), False), (tn.LayerNorm(3), False)],
)
def test_a_function_of_each_entry_is_recognised_by_its_derivative(layer, is_entrywise):
    net = tn.Sequential(tn.Linear(2, 3), layer, tn.Linear(3, 2))
    trace = tn.trace(net, tn.SquaredError(), net.init(np.random.default_rng(0), np.float64), X, Y)
    assert ("f′(z1)" in trace.slopes) == is_entrywise
    assert ("(20)" in str(trace)) == is_entrywise


def test_every_rule_and_its_factors_reproduce_the_value():
    """What the page plugs in: each quantity of a dense network computed from its factors alone."""
    rng = np.random.default_rng(0)
    net = tn.Sequential(tn.Linear(3, 4), tn.Tanh(), tn.Linear(4, 2))
    trace = tn.trace(net, tn.SquaredError(), net.init(rng, np.float64), rng.normal(size=(5, 3)), np.ones((5, 2)))
    rules = {
        "affine": lambda W, a, b: a @ W.T + b,
        "transposed": lambda W, δ: δ @ W,
        "product": lambda above, slope: above * slope,
        "outer": lambda δ, a: δ.T @ a,
        "sum": lambda δ: δ.sum(axis=0),
    }
    seen = {q.rule for q in trace}
    assert set(rules) <= seen
    for q in trace:
        if q.rule in rules:
            np.testing.assert_allclose(q.value, rules[q.rule](*map(trace.__getitem__, q.factors)), rtol=1e-12)


def test_the_weights_of_attention_are_those_of_torch():
    torch = pytest.importorskip("torch")
    net, x = tn.MultiHeadAttention(6, 2, causal=True), np.random.default_rng(0).normal(size=(3, 5, 6))
    params = net.init(np.random.default_rng(1), np.float64)
    trace = tn.trace(net, tn.SquaredError(), params, x, np.zeros_like(x))
    theirs = torch.nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.from_numpy(params["W_in"]))
        mask, given = torch.ones(5, 5).triu(1).bool(), torch.from_numpy(x)
        _, weights = theirs(given, given, given, attn_mask=mask, average_attn_weights=False)
    np.testing.assert_allclose(trace["P1"], weights.numpy(), rtol=1e-12, atol=1e-15)


PRINT = """
import tinynet as tn
from tinynet.inspection import history_table
from tests.test_inspection import NET, PARAMS, X, Y
print(tn.trace(NET, tn.SquaredError(), PARAMS, X, Y))
print(tn.summary(NET, X))
print(tn.fit(NET, tn.SquaredError(), X, Y, optimizer=tn.SGD(0.5), epochs=2))
report = tn.verify(tn.Sigmoid(), probes=["rectangular", "saturated"])
print(report, *report.coverage, sep="\\n")
report = tn.verify((lambda x: x * x, lambda args, dy: (dy * args[0],)), inputs=((2, 3),))
print(report, *report.findings, sep="\\n")
"""


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "delta^2 = dE/da^2 (*) f'(z^2)"), ("gbk", "δ^2 = dE/da^2")])
def test_prints_in_a_terminal_that_lacks_the_signs(encoding, shown):
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode(encoding)
    assert shown in text
    assert "?" not in text
    equations = [line for line in text.splitlines() if " = " in line and "[" in line]
    assert len({line.index("[") for line in equations}) == 1


def test_shows_itself_in_a_notebook():
    page = tn.trace(NET, tn.SquaredError(), PARAMS, X, Y)._repr_html_()
    assert page.startswith("<iframe")
    assert "dW² = δ² (a¹)ᵀ" in page
    table = tn.summary(NET, X)._repr_html_()
    assert "<td>Linear(n_in=2, n_out=2)</td>" in table
    assert table.count("<tr>") == 1 + 1 + 4 + 1


# What a network consists of

CONVOLUTIONS = tn.Sequential(
    tn.Conv2d(1, 4, kernel=3, padding=1),
    tn.ReLU(),
    tn.MaxPool2d(2),
    tn.Residual(tn.Sequential(tn.Conv2d(4, 4, kernel=1), tn.Tanh())),
    tn.Flatten(),
    tn.LayerNorm(64),
    tn.Linear(64, 10),
)


def test_counts_shapes_parameters_and_multiply_adds():
    table = tn.summary(CONVOLUTIONS, np.zeros((7, 1, 8, 8)))
    assert [row.path for row in table.rows] == ["0", "1", "2", "3.f.0", "3.f.1", "4", "5", "6"]
    assert [row.output_shape for row in table.rows][:3] == [(4, 8, 8), (4, 8, 8), (4, 4, 4)]
    assert [row.parameters for row in table.rows] == [4 * 9 + 4, 0, 0, 16 + 4, 0, 0, 128, 650]
    assert [row.multiply_adds for row in table.rows] == [64 * 4 * 9, 0, 0, 16 * 4 * 4, 0, 0, 0, 640]
    assert table.parameters == 838
    assert table.multiply_adds == 2304 + 256 + 640
    assert table.input_shape == (1, 8, 8)


def test_prints_an_aligned_table():
    lines = str(tn.summary(CONVOLUTIONS, np.zeros((7, 1, 8, 8)))).split("\n")
    assert lines[0].split() == ["layer", "output", "parameters", "multiply-adds"]
    assert lines[3].startswith("0      Conv2d(n_in=1, n_out=4, kernel=3, stride=1, padding=1)  4 × 8 × 8")
    assert lines[-1].split() == ["total", "838", "3,200"]
    assert len({len(line) for line in lines if "Conv2d" in line or "total" in line}) == 1


def test_takes_indices_and_a_single_layer():
    net = tn.Sequential(tn.Embedding(9, 4), tn.Flatten(), tn.Linear(12, 2))
    assert tn.summary(net, np.zeros((1, 3), int)).parameters == 36 + 26
    assert tn.summary(tn.Linear(3, 2), np.zeros((1, 3))).rows[0].multiply_adds == 6


@dataclass(frozen=True)
class Sum(tn.Layer):
    """y = f(x) + g(x) + c: a composite that learns something itself."""

    f: tn.Layer
    g: tn.Layer

    def init(self, rng, dtype=np.float32):
        return {"f": self.f.init(rng, dtype), "g": self.g.init(rng, dtype), "c": np.zeros(1, dtype)}

    def forward(self, params, x):
        return self.f.forward(params["f"], x)[0] + self.g.forward(params["g"], x)[0] + params["c"], None

    def backward(self, params, cache, dy):
        raise NotImplementedError


def test_looks_into_any_composite():
    table = tn.summary(Sum(tn.Linear(3, 2), tn.Sequential(tn.Linear(3, 2), tn.Tanh())), np.zeros((1, 3)))
    assert [(row.path, row.parameters) for row in table.rows] == [("f", 8), ("g.0", 8), ("g.1", 0), ("", 1)]


def test_parameters_that_are_used_twice_are_counted_once():
    chain = tn.Sequential(tn.Linear(3, 3), tn.Tanh(), tn.Linear(3, 3))
    tied = tn.summary(tn.Tied(chain, {"2.W": "0.W"}), np.zeros((1, 3)))
    assert [row.parameters for row in tied.rows] == [12, 0, 3]
    assert tied.multiply_adds == 18
    pair = np.zeros((1, 3)), np.zeros((1, 3))
    shared = tn.summary(tn.Shared(tn.Linear(3, 2)), pair)
    assert [row.parameters for row in shared.rows] == [8, 0]
    assert shared.multiply_adds == 12


def test_multiply_adds_of_attention_and_recurrent_layers_are_counted():
    """n = 8, t = 5: four projections t n², and Q Kᵀ and A V, t² n each; of the GRU three gates at each of 5 times."""
    attention = tn.summary(tn.MultiHeadAttention(8, 2), np.zeros((1, 5, 8)))
    assert attention.multiply_adds == 4 * 5 * 64 + 2 * 25 * 8
    assert tn.summary(tn.GRU(6, 4), np.zeros((2, 5, 6), np.float32)).multiply_adds == 5 * 3 * 4 * (6 + 4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"summary: x has shape \(0, 3\); expected \(m, …\) with m of at least 1"):
        tn.summary(tn.Linear(3, 2), np.zeros((0, 3)))
    with pytest.raises(TypeError, match=r"summary: net is the class Linear; expected an instance of"):
        tn.summary(tn.Linear, np.zeros((1, 3)))


# What training did


def test_a_result_of_fit_shows_itself():
    x = np.eye(2)
    result = tn.fit(tn.Linear(2, 2), tn.SquaredError(), x, x, optimizer=tn.SGD(0.1), epochs=3, validation=(x, x))
    head, columns, loss, validation = str(result).splitlines()
    assert head.startswith("3 epochs in ")
    assert head.endswith(", stopped by epochs")
    assert columns.split() == ["first", "last", "smallest", "at", "epoch", "largest", "at", "epoch"]
    first, *_, last = (f"{value:.4g}" for value in result.history["loss"])
    assert loss.split() == ["loss", first, last, last, "3", first, "1"]
    assert validation.startswith("validation_loss")
    assert len(columns) == len(loss) == len(validation)
    assert f"<td>{first}</td>" in result._repr_html_()


def test_the_table_of_a_history_leaves_out_what_was_not_measured():
    history = {"loss": np.array([2.0, np.nan, 1.0]), "accuracy": np.full(3, np.nan), "seconds": np.arange(3.0)}
    assert [row[0] for row in history_table(history)] == ["", "loss"]
    assert history_table(history)[1] == ("loss", "2", "1", "1", "3", "2", "1")
