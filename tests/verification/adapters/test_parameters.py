"""Where an object keeps its parameters, beside what, and who moves them."""

import collections
import functools
import threading
import types

import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(23)
X, W = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
QUICK = {"probes": ["rectangular", "batch 1"], "dtype": "float64"}


class Product:
    """x W, its gradient by W times `factor`."""

    def __init__(self, factor=1, W=W):
        self.W, self.factor = np.array(W) if isinstance(W, np.ndarray) else W, factor

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW = self.factor * self.x.T @ dy
        return dy @ self.W.T


def beside(thing):
    def make(factor):
        product = Product(factor)
        product.thing = thing()
        return product

    return make


class CacheOfThread(Product):
    def __init__(self, factor):
        super().__init__(factor)
        self.cache = threading.local()

    def forward(self, x):
        self.cache.x = x
        return x @ self.W

    def backward(self, dy):
        self.dW = self.factor * self.cache.x.T @ dy
        return dy @ self.W.T


class Parent:
    """Calls its only child by bound methods, or by what `bind` makes of it."""

    def __init__(self, factor, bind=None):
        child = Product(factor)
        self.ahead, self.back = bind(child) if bind else (child.forward, child.backward)

    def forward(self, x):
        return self.ahead(x)

    def backward(self, dy):
        return self.back(dy)


class Positive(Product):
    def forward(self, x):
        if not (self.W > 0).all():
            raise ValueError("W must be positive")
        return super().forward(x)


class OfList(collections.UserList, Product):
    def __init__(self, factor):
        super().__init__([W.copy()])
        self.factor = factor

    @property
    def W(self):
        return self[0]


class WithGradient(np.ndarray):
    """An array that keeps its gradient."""

    def __array_finalize__(self, other):
        self.grad = getattr(other, "grad", None)


class OfWithGradient(Product):
    def __init__(self, factor):
        self.W, self.factor = W.view(WithGradient).copy(), factor

    def forward(self, x):
        return np.asarray(super().forward(x))

    def backward(self, dy):
        self.W.grad = self.factor * self.x.T @ dy
        return dy @ np.asarray(self.W).T


class KeepsTranspose(Product):
    def __init__(self, factor):
        super().__init__(factor)
        self.WT = self.W.T

    def backward(self, dy):
        super().backward(dy)
        return dy @ self.WT


class CapturesItself(Product):
    def __init__(self, factor):
        super().__init__(factor)
        self.ahead, self.back = lambda x: x @ self.W, [lambda dy: dy @ self.W.T]

    def forward(self, x):
        self.x = x
        return self.ahead(x)

    def backward(self, dy):
        super().backward(dy)
        return self.back[0](dy)


class Scaled(Product):
    """A number under a key that looks like a path."""

    def __init__(self, factor):
        self.params, self.factor = {"layer.0.scale": 0.5}, factor

    def forward(self, x):
        self.x = x
        return x * self.params["layer.0.scale"]

    def backward(self, dy):
        self.grads = {"layer.0.scale": self.factor * float((self.x * dy).sum())}
        return dy * self.params["layer.0.scale"]


PLACES = {
    "an array that keeps its gradient": OfWithGradient,
    "beside its transpose": KeepsTranspose,
    "functions that capture the object": CapturesItself,
    "under a key with dots": Scaled,
    "beside a module": beside(lambda: np),
    "beside a lock": beside(threading.Lock),
    "beside a generator": beside(lambda: (i for i in range(3))),
    "beside a lock in a list": beside(lambda: [threading.Lock()]),
    "its cache of the thread": CacheOfThread,
    "an array of JAX's": lambda factor: Product(factor, jnp.asarray(W)),
    "integers": lambda factor: Product(factor, np.array([[1, 2], [3, 4], [5, 6]])),
    "positive": lambda factor: Positive(factor, np.abs(W) / 100),
    "bound methods": Parent,
    "partial functions": lambda factor: Parent(
        factor, lambda c: (functools.partial(Product.forward, c), functools.partial(Product.backward, c))
    ),
    "a list of its own": OfList,
}


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("place", PLACES)
def test_a_parameter_is_found_wherever_it_is_held(place, factor):
    report = tn.verify(PLACES[place](factor), inputs=X, **QUICK)
    assert len(report.compared) == 2, str(report)
    assert [(f.fault, f.factor) for f in report.findings] == ([] if factor == 1 else [("scaled", "3")]), str(report)


class TiedByView(Product):
    """tanh(x W) Wᵀ, the transpose kept as a view of W."""

    def __init__(self, factor):
        super().__init__(factor)
        self.V = self.W.T

    def forward(self, x):
        self.h = np.tanh(super().forward(x))
        return self.h @ self.V

    def backward(self, dy):
        dz = dy @ self.V.T * (1 - self.h**2)
        self.dW = self.x.T @ dz + self.factor * dy.T @ self.h
        return dz @ self.W.T


@pytest.mark.parametrize("factor", [1, 3])
def test_a_transpose_that_is_a_view_is_the_same_parameter(factor):
    report = tn.verify(TiedByView(factor), inputs=X, **QUICK)
    assert report.compared == ("x", "W")
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), str(report)


class OneGradient(Product):
    """W and b, whose gradients lie in one array."""

    def __init__(self):
        super().__init__()
        self.b = np.ones(2)

    def forward(self, x):
        return super().forward(x) + self.b

    def backward(self, dy):
        self.grad = np.concatenate([(self.x.T @ dy).ravel(), dy.sum(0)])
        return dy @ self.W.T


def test_a_gradient_of_several_parameters_in_one_is_not_taken_for_that_of_one_of_them():
    report = tn.verify(OneGradient(), inputs=X, **QUICK)
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "no gradient of it was found" in report.reason


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (W + 1j, "W is a numpy.ndarray of complex128"),
        (types.MappingProxyType({"W": W}), "W.W is held where it cannot be moved"),
    ],
    ids=["complex", "a mapping that cannot be copied"],
)
def test_a_parameter_that_cannot_be_moved_is_refused(held, told):
    class Held(Product):
        def forward(self, x):
            self.x = x
            return (x @ (self.W["W"] if isinstance(self.W, types.MappingProxyType) else self.W)).real

        def backward(self, dy):
            self.dW = self.x.T @ dy
            return dy @ W.T

    with pytest.raises(tn.TargetError, match=told):
        tn.verify(Held(1, held), inputs=X, **QUICK)


class Descent:
    def __init__(self, lr=0.01):
        self.lr = lr

    def step(self, W, gradient):
        W -= self.lr * gradient


class Adam(Descent):
    v = 0.0

    def step(self, W, gradient):
        self.v = 0.9 * self.v + 0.1 * gradient**2
        W -= self.lr * gradient / (np.sqrt(self.v) + 1e-8)


class Trained(Product):
    """Its backward pass moves W by an optimizer of its own, or by its own learning rate, before or after dx."""

    def __init__(self, factor=1, optimizer=Descent, *, late=False):
        super().__init__(factor)
        self.optimizer, self.late = optimizer() if optimizer else None, late
        if not optimizer:
            self.lr = 0.01

    def backward(self, dy):
        before, dW = self.W.copy(), self.factor * self.x.T @ dy
        if self.optimizer:
            self.optimizer.step(self.W, dW)
        else:
            self.W = self.W - self.lr * dW
        return dy @ (self.W if self.late else before).T


@pytest.mark.parametrize("optimizer", [Descent, None], ids=["an optimizer in place", "a rate of its own"])
def test_the_step_of_a_layer_that_trains_itself_is_its_gradient(optimizer):
    right = tn.verify(Trained(1, optimizer), inputs=X, **QUICK)
    assert (right.verdict, right.compared) == ("PASS", ("x", "W")), str(right)
    assert any("moves the parameters itself" in note for note in right.notes)
    (wrong,) = tn.verify(Trained(2, optimizer), inputs=X, **QUICK).findings
    assert (wrong.gradient, wrong.fault, wrong.factor) == ("W", "scaled", "2")
    (late,) = tn.verify(Trained(1, optimizer, late=True), inputs=X, **QUICK).findings
    assert (late.gradient, late.fault) == ("x", "already updated W")


def test_a_step_that_is_no_gradient_is_not_judged():
    report = tn.verify(Trained(1, Adam), inputs=X, **QUICK)
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "no gradient of it was found" in report.reason
    assert tn.verify(Trained(1, Adam), inputs=X, wrt=["x"], **QUICK).verdict == "PASS"
    assert tn.verify(Trained(1, Adam, late=True), inputs=X, **QUICK).verdict == "FAIL"


class OddPlaces(Product):
    """Leaves its gradients where no name says so."""

    def backward(self, dy):
        self.out = [self.factor * self.x.T @ dy, dy @ self.W.T]


@pytest.mark.parametrize(("factor", "wrt", "verdict"), [(3, "x", "PASS"), (3, "W", "FAIL"), (1, "W", "PASS")])
def test_values_say_where_a_gradient_is_whatever_is_judged(factor, wrt, verdict):
    report = tn.verify(OddPlaces(factor), inputs=X, wrt=[wrt], **QUICK)
    assert (report.verdict, report.compared) == (verdict, (wrt,)), str(report)


class Centred(Product):
    """Subtracts a mean over the calls so far: after the first, y depends on x mostly outside it."""

    def __init__(self, right, name):
        super().__init__()
        self.right, self.name = right, name
        setattr(self, name, None)

    def forward(self, x):
        y, before = super().forward(x), getattr(self, self.name)
        self.share = 1.0 if before is None else 0.1
        setattr(self, self.name, y.mean(0) if before is None else 0.9 * before + 0.1 * y.mean(0))
        return y - getattr(self, self.name)

    def backward(self, dy):
        return super().backward(dy - (self.share if self.right else 1.0) * dy.mean(0))


@pytest.mark.parametrize("name", ["running_mean", "centre"])
@pytest.mark.parametrize("right", [True, False])
def test_what_only_the_first_call_does_hides_no_later_one(right, name):
    report = tn.verify(Centred(right, name), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if right else "FAIL"), str(report)


def test_a_backward_pass_that_raises_at_another_batch_is_noted():
    def backward(args, dy):
        return (dy * np.ones((4, 3)) * np.cos(args[0]),)

    def forward(x):
        return np.sin(x)

    report = tn.verify((forward, backward), inputs=X, probes=["rectangular", "batch 2"], dtype="float64")
    assert report.verdict == "PASS"
    assert any("at batch 2 the backward pass raises ValueError" in note for note in report.notes), str(report)
