"""Every form in which people write tanh(x W + b): the right one passes, and three wrong ones fail."""

from collections import OrderedDict, deque, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(11)
X, W, b = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3)
QUICK = {"probes": ["rectangular", "batch 1"]}


def right(dy, x, W, a):
    dz = dy * (1 - a * a)
    return dz @ W.T, x.T @ dz, dz.sum(axis=0)


# Each spoils the gradient of one array.


def mean(dy, x, W, a):
    dx, dW, db = right(dy, x, W, a)
    return dx, dW / len(x), db


def linear(dy, x, W, a):
    return dy @ W.T, *right(dy, x, W, a)[1:]


def negative(dy, x, W, a):
    dx, dW, db = right(dy, x, W, a)
    return dx, dW, -db


WRONG = [mean, linear, negative]


def value(x, W, b):
    return np.tanh(x @ W + b)


# Functions


def of_args(gradients):
    return (value, lambda args, dy: gradients(dy, *args[:2], value(*args))), (X, W, b)


def of_dy_and_cache(gradients):
    def forward(x, W, b):
        a = value(x, W, b)
        return a, (x, W, a)

    return (forward, lambda dy, cache: gradients(dy, *cache)), (X, W, b)


def of_cache_and_dy(gradients):
    (forward, backward), inputs = of_dy_and_cache(gradients)
    return (forward, lambda cache, dy: backward(dy, cache)), inputs


def of_each_argument(gradients):
    return (value, lambda x, W, b, dy: gradients(dy, x, W, value(x, W, b))), (X, W, b)


def of_dy_and_each_argument(gradients):
    return (value, lambda dy, x, W, b: gradients(dy, x, W, value(x, W, b))), (X, W, b)


def returning_a_dict(gradients):
    (forward, backward), inputs = of_dy_and_cache(gradients)
    return (forward, lambda dy, cache: dict(zip(("dx", "dW", "db"), backward(dy, cache), strict=True))), inputs


def of_a_dict_of_parameters(gradients):
    def forward(x, p):
        a = value(x, p["W"], p["b"])
        return a, (x, p["W"], a)

    def backward(dy, cache):
        dx, dW, db = gradients(dy, *cache)
        return dx, {"W": dW, "b": db}

    return (forward, backward), (X, {"W": W, "b": b})


def of_a_list_of_parameters(gradients):
    def forward(x, p):
        a = value(x, *p)
        return a, (x, p[0], a)

    def backward(dy, cache):
        dx, *dp = gradients(dy, *cache)
        return dx, dp

    return (forward, backward), (X, [W, b])


def of_several_outputs(gradients):
    def forward(x, W, b):
        a = value(x, W, b)
        return (a, 2 * a), (x, W, a)

    return (forward, lambda dy, cache: gradients(dy[0] + 2 * dy[1], *cache)), (X, W, b)


def of_a_dict_of_outputs(gradients):
    def forward(x, W, b):
        a = value(x, W, b)
        return {"a": a, "twice": 2 * a}, (x, W, a)

    return (forward, lambda dy, cache: gradients(dy["a"] + 2 * dy["twice"], *cache)), (X, W, b)


def returning_y_and_backprop(gradients):
    def dense(x, W, b):
        a = value(x, W, b)
        return a, lambda dy: gradients(dy, x, W, a)

    return dense, (X, W, b)


def backprop_that_runs_once(gradients):
    def dense(x, W, b):
        kept = [value(x, W, b)]
        return kept[0], lambda dy: gradients(dy, x, W, kept.pop())

    return dense, (X, W, b)


def returning_a_loss_and_gradients(gradients):
    def loss(x, W, b, t):
        a = value(x, W, b)
        return 0.5 * ((a - t) ** 2).sum(), gradients(a - t, x, W, a)

    return loss, (X, W, b, rng.standard_normal((5, 3)))


def with_a_flag(gradients):
    def forward(x, W, b, train=True):
        a = value(x, W, b)
        return a, (x, W, a, train)

    def backward(dy, cache):
        *cache, train = cache
        return gradients(dy, *cache) if train else right(dy, *cache)

    return (forward, backward), {"x": X, "W": W, "b": b, "train": True}


def in_float32(gradients):
    def forward(x, W, b):
        x, W, b = (np.asarray(v, np.float32) for v in (x, W, b))
        a = value(x, W, b)
        return a, (x, W, a)

    return (forward, lambda dy, cache: gradients(dy, *cache)), (X, W, b)


def of_static_methods(gradients):
    class Layer:
        @staticmethod
        def forward(ctx, x, W, b):
            a = np.tanh(x @ W + b)
            ctx.save_for_backward(x, W, a)
            return a

        @staticmethod
        def backward(ctx, dy):
            return gradients(dy, *ctx.saved_tensors)

    return Layer, (X, W, b)


FUNCTIONS = [
    of_args, of_dy_and_cache, of_cache_and_dy, of_each_argument, of_dy_and_each_argument, returning_a_dict,
    of_a_dict_of_parameters, of_a_list_of_parameters, of_several_outputs, of_a_dict_of_outputs,
    returning_y_and_backprop, backprop_that_runs_once, returning_a_loss_and_gradients, with_a_flag, in_float32,
    of_static_methods,
]  # fmt: skip


# Objects


class Dense:
    """Parameters in attributes; `gradients` says what is right."""

    def __init__(self, gradients):
        self.W, self.b, self.gradients = W.copy(), b.copy(), gradients

    def run(self, x):
        self.x, self.a = x, value(x, *self.weights())
        return self.a

    def pull(self, dy):
        dx, dW, db = self.gradients(dy, self.x, self.weights()[0], self.a)
        return self.keep(dx, dW, db)

    def weights(self):
        return self.W, self.b

    def keep(self, dx, dW, db):
        self.dW, self.db = dW, db
        return dx

    def forward(self, x):
        return self.run(x)

    def backward(self, dy):
        return self.pull(dy)


def methods(forward, backward):
    """Return an object with two methods of these names, and no others."""
    hidden = {"forward": None, "backward": None}
    return type("Named", (Dense,), hidden | {forward: Dense.run, backward: Dense.pull})


class Underscored(Dense):
    def __init__(self, gradients):
        self._w, self._b, self.gradients = W.copy(), b.copy(), gradients

    def weights(self):
        return self._w, self._b

    def keep(self, dx, dW, db):
        self._dw, self._db = dW, db
        return dx


class Suffixed(Dense):
    def keep(self, dx, dW, db):
        self.W_grad, self.b_grad = dW, db
        return dx


class Listed(Dense):
    def __init__(self, gradients):
        self.params, self.gradients = [W.copy(), b.copy()], gradients

    def weights(self):
        return self.params

    def keep(self, dx, dW, db):
        self.grads = [dW, db]
        return dx


class InADict(Dense):
    def __init__(self, gradients):
        self.params, self.gradients = {"W": W.copy(), "b": b.copy()}, gradients

    def weights(self):
        return self.params["W"], self.params["b"]

    def keep(self, dx, dW, db):
        self.grads = {"W": dW, "b": db}
        return dx


class InADictBesideIt(InADict):
    def keep(self, dx, dW, db):
        self.dW, self.db = dW, db
        return dx


class InNestedDicts(InADict):
    def __init__(self, gradients):
        self.params, self.gradients = {"layer": {"W": W.copy(), "b": b.copy()}}, gradients

    def weights(self):
        return self.params["layer"]["W"], self.params["layer"]["b"]

    def keep(self, dx, dW, db):
        self.grads = {"layer": {"W": dW, "b": db}}
        return dx


def held_by(container, weights=tuple):
    """Return an object whose parameters and gradients are in `container(W=…, b=…)`."""

    class Held(Dense):
        def __init__(self, gradients):
            self.params, self.gradients = container(W=W.copy(), b=b.copy()), gradients

        def weights(self):
            return weights(self.params)

        def keep(self, dx, dW, db):
            self.grads = container(W=dW, b=db)
            return dx

    return Held


def of_objects(W, b):
    """Return an array of arrays."""
    both = np.empty(2, object)
    both[:] = W, b
    return both


class OfParameters(Dense):
    def __init__(self, gradients):
        self.W, self.b = SimpleNamespace(data=W.copy(), grad=None), SimpleNamespace(data=b.copy(), grad=None)
        self.gradients = gradients

    def weights(self):
        return self.W.data, self.b.data

    def keep(self, dx, dW, db):
        self.W.grad, self.b.grad = dW, db
        return dx


class Slotted:
    __slots__ = ("W", "a", "b", "dW", "db", "gradients", "x")
    __init__, run, pull, weights = Dense.__init__, Dense.run, Dense.pull, Dense.weights
    keep, forward, backward = Dense.keep, Dense.forward, Dense.backward


class OfLayers:
    def __init__(self, gradients):
        self.layers = [Dense(right), Dense(gradients)]
        self.layers[0].W = self.layers[0].W @ rng.standard_normal((3, 4))
        self.layers[0].b = np.linspace(-1, 1, 4)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy):
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy


class Accumulating(Dense):
    def __init__(self, gradients):
        super().__init__(gradients)
        self.dW, self.db = np.zeros_like(self.W), np.zeros_like(self.b)

    def keep(self, dx, dW, db):
        self.dW += dW
        self.db += db
        return dx


class WithRunningStatistics(Dense):
    def __init__(self, gradients):
        super().__init__(gradients)
        self.running_mean = np.zeros(3)

    def forward(self, x, train=True):
        y = self.run(x)
        if train:
            self.running_mean = 0.9 * self.running_mean + 0.1 * y.mean(axis=0)
        return y


class WithACache(Dense):
    def forward(self, x):
        a = value(x, self.W, self.b)
        return a, (x, a)

    def backward(self, dy, cache):
        self.x, self.a = cache
        return self.pull(dy)


class WithACacheFirst(WithACache):
    def backward(self, cache, dy):
        return super().backward(dy, cache)


class WithItsInput(Dense):
    def backward(self, x, dy):
        self.x = x
        return self.pull(dy)


class WithItsInputLast(Dense):
    def backward(self, dy, x):
        self.x = x
        return self.pull(dy)


class Random(Dense):
    def forward(self, x):
        self.mask = np.random.rand(*x.shape) > 0.3  # noqa: NPY002 - as in many a dropout
        return self.run(x * self.mask)

    def backward(self, dy):
        return self.pull(dy) * self.mask


class OfItsClass(Dense):
    """Its weights are the class's."""

    W, b = W, b

    def __init__(self, gradients):
        self.gradients = gradients


class OfTwoOutputs(Dense):
    def forward(self, x):
        a = self.run(x)
        return a, 2 * a

    def backward(self, da, db):
        return self.pull(da + 2 * db)


class OfTwoInputs(Dense):
    def forward(self, x, h):
        self.u, self.h = np.array(1.5), h
        return self.run(x) + self.u * h

    def backward(self, dy):
        return self.pull(dy), self.u * dy


def returning(of):
    return type("Returning", (Dense,), {"keep": lambda self, dx, dW, db: of(dx, dW, db)})


OBJECTS = {
    "attributes": Dense,
    "__call__, backward": methods("__call__", "backward"),
    "__call__, backprop": methods("__call__", "backprop"),
    "fprop, bprop": methods("fprop", "bprop"),
    "forward_pass, backward_pass": methods("forward_pass", "backward_pass"),
    "underscores": Underscored,
    "suffixes": Suffixed,
    "lists": Listed,
    "dicts": InADict,
    "a dict beside dW and db": InADictBesideIt,
    "nested dicts": InNestedDicts,
    "ordered dict": held_by(OrderedDict, lambda p: (p["W"], p["b"])),
    "dict of a class": held_by(type("Parameters", (dict,), {}), lambda p: (p["W"], p["b"])),
    "named tuple": held_by(namedtuple("Pair", "W b")),
    "deque": held_by(lambda W, b: deque([W, b])),
    "namespace": held_by(SimpleNamespace, lambda p: (p.W, p.b)),
    "array of objects": held_by(of_objects),
    "data and grad": OfParameters,
    "slots": Slotted,
    "layers": OfLayers,
    "accumulating": Accumulating,
    "running statistics": WithRunningStatistics,
    "forward -> (y, cache), backward(dy, cache)": WithACache,
    "forward -> (y, cache), backward(cache, dy)": WithACacheFirst,
    "backward(x, dy)": WithItsInput,
    "backward(dy, x)": WithItsInputLast,
    "random": Random,
    "arrays of the class": OfItsClass,
    "backward(dy1, dy2)": OfTwoOutputs,
    "(dx, dW, db)": returning(lambda dx, dW, db: (dx, dW, db)),
    "(dx, [dW, db])": returning(lambda dx, dW, db: (dx, [dW, db])),
    "(dx, {dW, db})": returning(lambda dx, dW, db: (dx, {"W": dW, "b": db})),
}


@pytest.mark.parametrize("gradients", [right, *WRONG])
@pytest.mark.parametrize("form", FUNCTIONS)
def test_functions(form, gradients):
    target, inputs = form(gradients)
    judged(tn.verify(target, inputs=inputs, **QUICK, named=gradients is mean), gradients)


SINGLE = {
    "(*args, dy)": (np.tanh, lambda slope: lambda x, dy: dy * slope(np.tanh(x))),
    "(dy, *args)": (np.tanh, lambda slope: lambda dy, x: dy * slope(np.tanh(x))),
    "(args, dy)": (np.tanh, lambda slope: lambda args, dy: dy * slope(np.tanh(args[0]))),
    "(dy)": (lambda x: x[:, ::-1] * 2, lambda slope: lambda dy: 2 * slope(np.zeros(1)) * dy[:, ::-1]),
}


@pytest.mark.parametrize("slope", [lambda a: 1 - a**2, lambda a: 3 * (1 - a**2), lambda a: a**2 - 1, lambda a: 2 - a])
@pytest.mark.parametrize("form", SINGLE)
def test_functions_of_one_argument(form, slope):
    forward, backward = SINGLE[form]
    report = tn.verify((forward, backward(slope)), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if slope(0.5) == 0.75 else "FAIL"), report
    assert [n for n in report.notes if "read as" in n] == ([f"read as backward{form}"] if form != "(args, dy)" else [])


@pytest.mark.parametrize("gradients", [right, *WRONG])
@pytest.mark.parametrize("form", OBJECTS)
def test_objects(form, gradients):
    judged(tn.verify(OBJECTS[form](gradients), inputs=X, **QUICK, named=gradients is mean), gradients)


@pytest.mark.parametrize("gradients", [right, *WRONG])
def test_objects_of_two_inputs(gradients):
    report = tn.verify(OfTwoInputs(gradients), inputs=(X, X[:, :3]), **QUICK, named=gradients is mean)
    judged(report, gradients)


class Layer(tn.Layer):
    def __init__(self, gradients):
        object.__setattr__(self, "gradients", gradients)

    def init(self, rng, dtype=np.float32):
        return {"W": W.astype(dtype), "b": b.astype(dtype)}

    def forward(self, params, x):
        a = value(x, params["W"], params["b"])
        return a, (x, a)

    def backward(self, params, cache, dy):
        dx, dW, db = self.gradients(dy, cache[0], params["W"], cache[1])
        return dx, {"W": dW, "b": db}


class Squared(tn.Layer):
    """A composite of one's own."""

    def __init__(self, layer):
        object.__setattr__(self, "layer", layer)

    def init(self, rng, dtype=np.float32):
        return {"layer": self.layer.init(rng, dtype)}

    def forward(self, params, x):
        y, cache = self.layer.forward(params["layer"], x)
        return y * y, (y, cache)

    def backward(self, params, cache, dy):
        dx, dparams = self.layer.backward(params["layer"], cache[1], 2 * cache[0] * dy)
        return dx, {"layer": dparams}


LAYERS = {
    "a layer": (Layer, {}),
    "a composite": (lambda gradients: Squared(Layer(gradients)), {}),
    "a network": (lambda gradients: tn.Sequential(Layer(gradients), tn.Linear(3, 2)), {}),
    "a network with its loss": (lambda gradients: tn.Sequential(Layer(gradients)), {"loss": tn.SquaredError()}),
}


@pytest.mark.parametrize("gradients", [right, *WRONG])
@pytest.mark.parametrize("form", LAYERS)
def test_layers(form, gradients):
    make, options = LAYERS[form]
    judged(tn.verify(make(gradients), inputs=X, **options, **QUICK, named=gradients is mean), gradients)


class Energy:
    """A loss whose gradient is taken `factor` times."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, y_hat, y):
        self.r = y_hat - y
        return 0.5 * (self.r**2).sum()

    def backward(self):
        return self.factor * self.r


class WithDefault(Energy):
    def backward(self, dout=1):
        return dout * self.factor * self.r


class OfBoth(Energy):
    def backward(self, y_hat, y):
        return self.factor * (y_hat - y)


class ByEntry:
    def __init__(self, factor):
        self.factor = factor

    def loss(self, y, p):
        return -y * np.log(p) - (1 - y) * np.log(1 - p)

    def gradient(self, y, p):
        return self.factor * ((1 - y) / (1 - p) - y / p)


@pytest.mark.parametrize("factor", [1, 2, -1, 1 / 5])
@pytest.mark.parametrize("cls", [Energy, WithDefault, OfBoth, ByEntry])
def test_objects_that_are_losses(cls, factor):
    y, p = (rng.standard_normal((5, 3)) > 0) * 1.0, rng.uniform(0.1, 0.9, (5, 3))
    report = tn.verify(cls(factor), inputs=(y, p) if cls is ByEntry else (p, y), **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report
    assert report.compared[0] == ("p" if cls is ByEntry else "y_hat")


class Softplus:
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, x):
        return np.log1p(np.exp(x))

    def gradient(self, x):
        return self.slope(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("slope", [lambda s: s, lambda s: s * (1 - s), lambda s: 1 - s, lambda s: -s])
def test_objects_whose_gradient_is_by_entry(slope):
    report = tn.verify(Softplus(slope), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if slope(0.2) == 0.2 else "FAIL"), report
    assert "read as dy times gradient(*args)" in report.notes


class Scale:
    """A number as a parameter, beside one that is none."""

    eps = 1e-3

    def __init__(self, gradient):
        self.a, self.dt, self.t, self.gradient = 1.5, 0.1, 1.0, gradient

    def forward(self, x):
        self.x = x
        return self.a * np.sin(x) * self.t

    def backward(self, dy):
        self.da = self.gradient(dy, self.x)
        return dy * self.a * np.cos(self.x)


@pytest.mark.parametrize("factor", [1, 2, -1, 0])
def test_a_number_with_a_gradient_by_its_name_is_a_parameter(factor):
    report = tn.verify(Scale(lambda dy, x: factor * (dy * np.sin(x)).sum()), inputs=X, **QUICK)
    assert report.compared == ("x", "a")
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


class Product:
    """sin(a) b, and the gradient of b alone."""

    def forward(self, a, b):
        self.a = a
        return np.sin(a) * b

    def backward(self, dy):
        return np.sin(self.a) * dy


def test_a_gradient_of_the_second_argument_alone_leaves_the_first_one_unjudged():
    report = tn.verify(Product(), inputs=(X, X), **QUICK)
    assert (report.verdict, report.compared) == ("INCONCLUSIVE", ("b",))
    assert "argument a moves y and no gradient of it was found" in report.reason


def judged(report, gradients):
    if gradients is right:
        assert report.verdict == "PASS", report
        assert len(report.compared) >= 3
    else:
        assert report.verdict == "FAIL", report
        assert len(report.findings) == 1
