"""The contract: what a new layer gets for free, and what it must write."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

import tinynet as tn
import tinynet.trees
from tests.reference import assert_within, vjp_by_jax
from tinynet.layers.layer import forward_with_state
from tinynet.trees import map_leaves
from tinynet.verification.cases import CASES


@dataclass(frozen=True)
class Square(tn.Layer):
    """y = x²: the least that a layer can be."""

    def forward(self, params, x):
        return x * x, x

    def backward(self, params, x, dy):
        return 2 * x * dy, {}


def test_forward_and_backward_are_all_a_layer_needs():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 4, 3))
    assert Square().init(rng) == {}
    y, cache = Square().forward({}, x)
    dx, dparams = Square().backward({}, cache, dy)
    assert_within((y, dx, dparams), vjp_by_jax(Square(), {}, x, dy))
    assert Square().param_grads({}, cache, dy) == {}


def test_it_joins_a_network_with_the_others():
    net = tn.Sequential(tn.Linear(3, 2), Square(), tn.Linear(2, 1), Square())
    params = net.init(np.random.default_rng(0), np.float64)
    x, dy = np.random.default_rng(1).normal(size=(5, 3)), np.random.default_rng(2).normal(size=(5, 1))
    y, cache = net.forward(params, x)
    assert_within((y, *net.backward(params, cache, dy)), vjp_by_jax(net, params, x, dy))


@pytest.mark.parametrize("contract", [tn.Layer, tn.Loss, tn.Optimizer])
def test_a_contract_alone_is_nothing_to_call(contract):
    with pytest.raises(TypeError, match="abstract"):
        contract()


def test_param_grads_is_what_backward_gives():
    layer, rng = tn.Linear(3, 2), np.random.default_rng(0)
    params = layer.init(rng, np.float64)
    _, cache = layer.forward(params, rng.normal(size=(4, 3)))
    dy = rng.normal(size=(4, 2))
    assert_within(tn.Layer.param_grads(layer, params, cache, dy), layer.param_grads(params, cache, dy), bound=0)


@dataclass(frozen=True)
class Memory(tn.Layer):
    """y = x ⊗ scale with a state: a scale that grows by the mean of x at each training step."""

    def init_state(self, dtype=np.float32):
        return {"scale": np.ones((), dtype)}

    def update_state(self, state, cache):
        return {"scale": state["scale"] + cache[0].mean()}

    def forward(self, params, x, *, state=None):
        return x * state["scale"], (x, state["scale"])

    def backward(self, params, cache, dy):
        return dy * cache[1], {}


@dataclass(frozen=True)
class Branches(tn.Layer):
    """The sum of two ways and a third: a composite that its fields describe."""

    ways: tuple[tn.Layer, ...]
    third: tn.Layer
    number: int = 0

    def init(self, rng, dtype=np.float32):
        return {"ways": tuple(way.init(rng, dtype) for way in self.ways), "third": self.third.init(rng, dtype)}

    def forward(self, params, x):
        parts = self.split(params)
        return sum(child.forward(parts[name], x)[0] for name, child in self.children().items()), x

    def backward(self, params, x, dy):
        raise NotImplementedError


def test_a_composite_names_its_children_and_what_is_theirs():
    layer = Branches((tn.Linear(3, 3), tn.Tanh()), tn.Dropout(0.5))
    assert layer.children() == {"ways.0": tn.Linear(3, 3), "ways.1": tn.Tanh(), "third": tn.Dropout(0.5)}
    params = layer.init(np.random.default_rng(0))
    assert layer.split(params) == {"ways.0": params["ways"][0], "ways.1": {}, "third": {}}
    assert layer.split((1, 2, 3)) == {"ways.0": 1, "ways.1": 2, "third": 3}
    others = dict.fromkeys(layer.children(), tn.ReLU())
    assert layer.with_children(others) == Branches((tn.ReLU(), tn.ReLU()), tn.ReLU())
    assert tn.Linear(3, 3).children() == {}
    chain = tn.Sequential(tn.Tanh(), tn.Residual(tn.ReLU()))
    assert chain.children() == {"0": tn.Tanh(), "1": tn.Residual(tn.ReLU())}
    assert chain.with_children({"0": tn.ReLU(), "1": tn.Tanh()}) == tn.Sequential(tn.ReLU(), tn.Tanh())
    assert tn.Residual(tn.ReLU()).split({"W": 1}) == {"f": {"W": 1}}


def test_sampling_a_composite_samples_its_children():
    rng = np.random.default_rng(0)
    plain = Branches((tn.Linear(3, 3), tn.Tanh()), tn.ReLU())
    assert plain.sample(rng) is plain
    sampled = Branches((tn.Linear(3, 3), tn.Dropout(0.5)), tn.ReLU()).sample(rng)
    assert sampled.ways[0] == tn.Linear(3, 3)
    assert sampled.ways[1].seed is not None


class Ways(tn.Layer):
    """x + Σ_k g_k(f_k(x)): no dataclass, and its layers are in pairs in a dict."""

    def __init__(self, ways):
        self.ways, self.letters = ways, ("a", 1)

    def forward(self, params, x):
        y, caches = x, {}
        for name, (f, g) in self.ways.items():
            h, of_f = f.forward(params["ways"][name][0], x)
            h, of_g = g.forward(params["ways"][name][1], h)
            y, caches[name] = y + h, (of_f, of_g)
        return y, caches

    def backward(self, params, caches, dy):
        dx, grads = dy, {}
        for name, (f, g) in self.ways.items():
            dh, of_g = g.backward(params["ways"][name][1], caches[name][1], dy)
            dh, of_f = f.backward(params["ways"][name][0], caches[name][0], dh)
            dx, grads[name] = dx + dh, [of_f, of_g]
        return dx, {"ways": grads}


WAYS = Ways({"a": [tn.Linear(3, 3), tn.Dropout(0.5)], "b": [tn.Tanh(), tn.Linear(3, 3)]})


def test_layers_deep_in_the_fields_are_children_too_and_their_params_those_of_the_composite():
    assert list(WAYS.children()) == ["ways.a.0", "ways.a.1", "ways.b.0", "ways.b.1"]
    params = WAYS.init(np.random.default_rng(0), np.float64)
    assert WAYS.split(params)["ways.b.1"] is params["ways"]["b"][1]
    assert WAYS.split(params)["ways.b.1"]["W"].shape == (3, 3)
    sampled = WAYS.sample(np.random.default_rng(0))
    assert sampled.ways["a"][1].seed is not None
    assert WAYS.ways["a"][1].seed is None
    assert tn.verify(sampled, inputs=(4, 3), params=params, probes=("rectangular", "param_grads")).ok


def test_a_wrong_child_is_named_by_its_place():
    class Doubled(tn.Linear):
        def backward(self, params, a, dz):
            return dz @ params["W"], {"W": 2 * dz.T @ a, "b": dz.sum(axis=0)}

    wrong = Ways({"a": [tn.Linear(3, 3), tn.Tanh()], "b": [tn.Tanh(), Doubled(3, 3)]})
    report = tn.verify(wrong, inputs=(4, 3), probes=("rectangular",), name_seconds=0)
    assert report.verdict == "FAIL"
    assert "ways.b.1: " in str(report)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_a_composite_that_is_no_dataclass_drops_what_its_children_drop_in_training(engine):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, 3))
    still = WAYS.with_children({**WAYS.children(), "ways.a.1": tn.Dropout(0.0)})
    options = {"optimizer": tn.SGD(0.1), "epochs": 2, "batch_size": 5, "engine": engine}
    a, b, again = (tn.fit(net, tn.SquaredError("mean"), x, y, **options) for net in (WAYS, still, WAYS))
    assert (a.params["ways"]["b"][1]["W"] != b.params["ways"]["b"][1]["W"]).all()
    assert_within(a.params, again.params, bound=0)


def test_state_is_handed_to_whoever_has_some():
    net = tn.Sequential(Square(), tn.Residual(tn.Sequential(tn.Tanh(), Memory())), Memory())
    state = net.init_state(np.float64)
    assert state == ({}, ({}, {"scale": 1.0}), {"scale": 1.0})
    x = np.full((4, 3), 2.0)
    y, cache = net.forward(net.init(np.random.default_rng(0)), x, state=state)
    np.testing.assert_allclose(y, 4 + np.tanh(4))
    later = net.update_state(state, cache)
    assert_within(later, ({}, ({}, {"scale": np.asarray(1 + np.tanh(4))}), {"scale": np.asarray(5 + np.tanh(4))}))
    np.testing.assert_allclose(
        net.forward(({}, ({}, {}), {}), x, state=later)[0], (4 + np.tanh(4) * (1 + np.tanh(4))) * (5 + np.tanh(4))
    )


def test_a_layer_without_state_is_called_with_two_arguments():
    y, _ = forward_with_state(Square(), {}, np.ones(2), {})
    np.testing.assert_array_equal(forward_with_state(Square(), {}, np.ones(2), None)[0], y)
    net = tn.Sequential(Square(), Memory())
    with pytest.raises(ValueError, match="state is 1 entries; expected a tuple of 2, one per layer"):
        net.forward(({}, {}), np.ones(2), state=({},))
    with pytest.raises(ValueError, match="state is dict; expected a tuple of 2"):
        net.update_state({}, ())


def test_a_subclass_that_computes_otherwise_says_again_whether_it_is_samplewise():
    class Centred(tn.Linear):
        def forward(self, params, x):
            return super().forward(params, x - x.mean(axis=0))

    class Renamed(tn.Linear):
        pass

    @dataclass(frozen=True, slots=True)
    class Scaled(tn.Linear, samplewise=True):
        def forward(self, params, x):
            return super(Scaled, self).forward(params, 2 * x)

    class Asked(Centred):
        def samplewise(self):
            return self.n_in == 2

    assert tn.Linear(2, 2).samplewise()
    assert Renamed(2, 2).samplewise()
    assert Scaled(2, 2).samplewise()
    assert Asked(2, 2).samplewise()
    assert not Asked(3, 2).samplewise()
    assert not Centred(2, 2).samplewise()
    assert not tn.Sequential(tn.Tanh(), tn.Residual(Centred(2, 2))).samplewise()
    assert tn.Sequential(tn.Tanh(), tn.Residual(tn.Linear(2, 2))).samplewise()


def samples_of(case):
    """A batch of 5 samples for the case's target, or None where it takes something else."""
    rng = np.random.default_rng(0)
    if case.inputs is None and isinstance(case.target, tn.Embedding):
        return rng.integers(case.target.n_in, size=(5, 4))
    if case.inputs is None or all(isinstance(n, int) for n in case.inputs):
        return rng.normal(size=(5, *(case.inputs or (5, 4))[1:]))
    return map_leaves(lambda a: np.concatenate([a] * 5)[:5] if len(a) < 5 else a[:5], case.inputs[0])


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.target, tn.Layer)], ids=str)
def test_samplewise_is_what_the_layer_does(case):
    """Each sample alone gives what it gives among the others, forward and back, just where `samplewise` says so."""
    layer, x, rng = case.target, samples_of(case), np.random.default_rng(1)
    params = layer.init(rng, np.float64)
    state = layer.init_state(np.float64)
    y, cache = forward_with_state(layer, params, x, state)
    dy = map_leaves(lambda a: rng.normal(size=a.shape), y)
    dx, _ = layer.backward(params, cache, dy)

    def alone(i):
        x_i, dy_i = map_leaves(lambda a: a[i : i + 1], (x, dy))
        y_i, cache_i = forward_with_state(layer, params, x_i, state)
        return y_i, layer.backward(params, cache_i, dy_i)[0]

    y_alone, dx_alone = zip(*map(alone, range(5)), strict=True)
    same = map_leaves(
        lambda whole, *parts: whole is None or np.allclose(whole, np.concatenate(parts)),
        (y, dx),
        *zip(y_alone, dx_alone, strict=True),
    )
    assert layer.samplewise() == all(tinynet.trees.leaves(same))


class Pair(NamedTuple):
    a: tn.Layer
    b: tn.Layer


@dataclass(frozen=True)
class Both(tn.Layer):
    """y = b(a(x)), of two layers that a NamedTuple holds."""

    pair: Pair

    def init(self, rng, dtype=np.float32):
        return tuple(layer.init(rng, dtype) for layer in self.pair)

    def forward(self, params, x):
        h, first = self.pair.a.forward(params[0], x)
        y, second = self.pair.b.forward(params[1], h)
        return y, (first, second)

    def backward(self, params, caches, dy):
        dh, of_b = self.pair.b.backward(params[1], caches[1], dy)
        dx, of_a = self.pair.a.backward(params[0], caches[0], dh)
        return dx, (of_a, of_b)


@dataclass(frozen=True)
class Frozen(tn.Layer):
    """y = g(f(x)), where f is a fixed map that is none of its children."""

    f: tn.Layer
    g: tn.Layer

    def children(self):
        return {"g": self.g}

    def init(self, rng, dtype=np.float32):
        return {"g": self.g.init(rng, dtype)}

    def forward(self, params, x):
        y, cache = self.g.forward(params["g"], self.f.forward({}, x)[0])
        return y, (x, cache)

    def backward(self, params, kept, dy):
        x, cache = kept
        dh, of_g = self.g.backward(params["g"], cache, dy)
        return self.f.backward({}, self.f.forward({}, x)[1], dh)[0], {"g": of_g}


@dataclass(frozen=True)
class Demanding(tn.Layer):
    """y = f(x), of an f that has to be a Linear and is made by the layer itself."""

    n: int
    f: tn.Layer = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "f", tn.Linear(self.n, self.n))

    def forward(self, params, x):
        return self.f.forward(params["f"], x)

    def backward(self, params, cache, dy):
        dx, grads = self.f.backward(params["f"], cache, dy)
        return dx, {"f": grads}


@pytest.mark.parametrize(
    "net",
    [Both(Pair(tn.Dropout(0.5), tn.Linear(3, 3))), Frozen(tn.Tanh(), tn.Dropout(0.5)), Demanding(3)],
    ids=["a NamedTuple", "not all fields are children", "a field that __init__ does not take"],
)
@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_composites_are_trained_summarized_and_traced_however_they_hold_their_children(net, engine):
    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    loss = tn.SquaredError("mean")
    result = tn.fit(net, loss, x, x, optimizer=tn.SGD(0.1), epochs=2, engine=engine)
    assert tn.summary(net, x).rows
    assert tn.trace(net, loss, result.params, x, x)["E"].shape == ()
    if isinstance(net, Both):
        assert type(net.sample(np.random.default_rng(1)).pair) is Pair
