"""How the two passes of published code are called: a learning rate, Chainer's tuples, and what cannot be called."""

import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(12)
X, W, B, T = (rng.standard_normal(s) for s in ((5, 3), (3, 2), (2,), (5, 2)))
QUICK = {"probes": ["rectangular", "batch 1", "state"]}


class Dense:
    """A layer that takes the step of gradient descent in its backward pass."""

    def __init__(self, dx=1, dW=1):
        self.W, self.b, self.factors = W.copy(), B.copy(), (dx, dW)

    def forward(self, x):
        self.x = x
        return np.tanh(x @ self.W + self.b)

    def gradients(self, dy):
        dz = dy * (1 - np.tanh(self.x @ self.W + self.b) ** 2)
        dx, dW = self.factors
        return dx * (dz @ self.W.T), dW * (self.x.T @ dz), dz.sum(axis=0)


class InPlace(Dense):
    def backward(self, grad, learning_rate):
        dx, dW, db = self.gradients(grad)
        self.W -= learning_rate * dW
        self.b -= learning_rate * db
        return dx


class Rebound(Dense):
    def backward(self, grad, lr=0.01):
        dx, dW, db = self.gradients(grad)
        self.W, self.b = self.W - lr * dW, self.b - lr * db
        return dx


class Kept(Dense):
    def backward(self, grad, eta):
        dx, self.dW, self.db = self.gradients(grad)
        self.W -= eta * self.dW
        self.b -= eta * self.db
        return dx


class Net:
    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad, learning_rate):
        for layer in reversed(self.layers):
            grad = layer.backward(grad, learning_rate)
        return grad


class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, grad, learning_rate):
        return grad * (1 - self.y**2)


@pytest.mark.parametrize("cls", [InPlace, Rebound, Kept, lambda *factors: Net(Tanh(), InPlace(*factors))])
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 3)])
def test_a_layer_that_takes_its_own_step_is_judged_by_what_the_step_was(cls, factors):
    report = tn.verify(cls(*factors), inputs=X, **QUICK)
    assert [name.rpartition(".")[2] for name in report.compared] == ["x", "W", "b"]
    assert report.verdict == ("PASS" if factors == (1, 1) else "FAIL"), report
    assert [f.gradient.rpartition(".")[2] for f in report.findings] == ["x", "W"][
        factors[0] == 1 : 1 + (factors[1] > 1)
    ]
    assert "learning_rate)" in report.notes[0] or "lr)" in report.notes[0] or "eta)" in report.notes[0]


class ForOneColumn:
    """A layer for one sample, a column: for more of them its bias would grow."""

    def __init__(self):
        self.W, self.b = W.T.copy(), B[:, None].copy()

    def forward(self, x):
        self.x = x
        return self.W @ x + self.b

    def backward(self, grad, learning_rate):
        dx, dW = self.W.T @ grad, grad @ self.x.T
        self.W, self.b = self.W - learning_rate * dW, self.b - learning_rate * grad
        return dx


def test_a_layer_for_one_column_is_judged_for_one():
    report = tn.verify(ForOneColumn(), inputs=X[:1].T, **QUICK)
    assert (report.verdict, report.compared) == ("PASS", ("x", "W", "b")), report


class AfterItsStep(Dense):
    def backward(self, grad, learning_rate):
        _, dW, db = self.gradients(grad)
        self.W -= learning_rate * dW
        dx, _, _ = self.gradients(grad)
        self.b -= learning_rate * db
        return dx


def test_the_gradient_of_x_by_weights_that_were_updated_is_wrong():
    assert [f.gradient for f in tn.verify(AfterItsStep(), inputs=X, **QUICK).findings] == ["x"]


class Function:
    """Chainer's first form: forward(inputs) -> (y, …), backward(inputs, gys) -> gradients."""

    factor = 1

    def forward(self, inputs):
        x, w = inputs
        return (np.sin(x @ w),)

    def backward(self, inputs, grad_outputs):
        x, w = inputs
        dz = grad_outputs[0] * np.cos(x @ w)
        return dz @ w.T, self.factor * (x.T @ dz)


class Wrong(Function):
    factor = 2


class OfOne:
    def forward(self, xs):
        self.y = np.exp(xs[0])
        return (self.y,)

    def backward(self, xs, gys):
        return (gys[0] * self.y,)


class Node(Function):
    def forward(self, inputs):
        self.inputs = inputs
        return super().forward(inputs)

    def backward(self, indexes, gys):
        both = super().backward(self.inputs, gys)
        return tuple(both[i] for i in indexes)


@pytest.mark.parametrize("inputs", [(X, W), ((X, W),), {"inputs": (X, W)}], ids=["flat", "a tuple", "by name"])
@pytest.mark.parametrize("cls", [Function, Node, Wrong])
def test_chainers_functions_take_their_arrays_one_by_one_or_as_a_tuple(cls, inputs):
    report = tn.verify(cls(), inputs=inputs, **QUICK)
    assert report.verdict == ("FAIL" if cls is Wrong else "PASS"), report
    assert len(report.compared) == 2


@pytest.mark.parametrize("inputs", [X, (X,), ((X,),)])
def test_a_function_of_chainers_takes_one_array_as_it_is(inputs):
    report = tn.verify(OfOne(), inputs=inputs, **QUICK)
    assert (report.verdict, report.compared) == ("PASS", ("xs.0",)), report


class ByRow:
    """The loss of each row, whose backward pass takes nothing."""

    factor = 1

    def forward(self, p, t):
        self.r = p - t
        return 0.5 * (self.r**2).sum(axis=1)

    def backward(self):
        return self.factor * self.r


@pytest.mark.parametrize("factor", [1, 2])
def test_a_loss_by_row_is_multiplied_by_dy_by_row(factor):
    target = ByRow()
    target.factor = factor
    report = tn.verify(target, inputs=(T, T[::-1]), **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


@pytest.mark.parametrize("factor", [1, 2])
def test_a_backprop_that_takes_nothing_is_multiplied_by_dy(factor):
    report = tn.verify(lambda x: ((x**2).sum(), lambda: 2 * factor * x), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


class WithOptimizer(Dense):
    def backward(self, grad, optimizer):
        dx, dW, db = self.gradients(grad)
        optimizer.step(self, dW, db)
        return dx


class WithKeyword(Dense):
    def backward(self, grad, *, scale):
        return scale * self.gradients(grad)[0]


class Ignoring(ByRow):
    def backward(self, dout=1):
        return self.r


def test_a_cotangent_with_a_default_must_be_multiplied_by():
    assert [f.gradient for f in tn.verify(Ignoring(), inputs=(T, T[::-1]), **QUICK).findings] == ["p"]


def printing(method):
    return lambda *args, **kwargs: method(*args, **kwargs)


class Decorated(Dense):
    def forward(self, x):
        return super().forward(x), x

    @printing
    def backward(self, dy, cache):
        self.x = cache
        dx, dW, self.db = self.gradients(dy)
        return dx, {"W": dW}


@pytest.mark.parametrize("factor", [1, 2])
def test_a_method_that_hides_its_arguments_is_called_in_every_way(factor):
    report = tn.verify(Decorated(dW=factor), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report
    assert report.compared == ("x", "W", "b")


class Hidden(Dense):
    @printing
    def backward(self, dy, first, second, third):
        return dy


CANNOT = {
    "hidden arguments": (Hidden(), r"tried .*missing 3 required positional arguments"),
    "an optimizer": (WithOptimizer(), r"WithOptimizer.backward takes grad, optimizer.*tried backward\(dy, \*args\).*"),
    "a keyword": (WithKeyword(), r"WithKeyword.backward takes grad, scale"),
    "a backprop of two": (
        lambda x: (np.tanh(x), lambda d, e: d),
        r"returns a function of \(d, e\); expected one of \(dy\)",
    ),
    "a pair with a keyword": (
        (np.tanh, lambda args, dy, *, s: dy),
        r"backward takes \(args, dy, \*, s\); expected one of",
    ),
}


@pytest.mark.parametrize("form", CANNOT)
def test_a_backward_pass_that_cannot_be_called_is_refused_with_what_was_tried(form):
    target, message = CANNOT[form]
    with pytest.raises(tn.TargetError, match=message):
        tn.verify(target, inputs=X, **QUICK)


def test_a_backward_pass_that_raises_as_it_should_be_called_is_wrong():
    class Raises(Dense):
        def backward(self, grad):
            raise TypeError("not today")

    assert [f.fault for f in tn.verify(Raises(), inputs=X, **QUICK).findings] == ["raises"]


def wave(x, factor):
    return np.sin(x), factor * np.cos(x), np.cos(x), factor * np.sin(x)


def of_closure(factor):
    def forward(x):
        s, ds, c, dc = wave(x, factor)
        return (s, c), lambda dy1, dy2: dy1 * ds - dy2 * dc

    return forward


def of_closure_beside(factor):
    def forward(x):
        (s, c), back = of_closure(factor)(x)
        return s, c, back

    return forward


class WaveOfObject:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return of_closure_beside(self.factor)(x)


def of_pair_with_cache(factor):
    def forward(x):
        s, ds, c, dc = wave(x, factor)
        return (s, c), (ds, dc)

    return forward, lambda dy1, dy2, cache: dy1 * cache[0] - dy2 * cache[1]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("form", [of_closure, of_closure_beside, WaveOfObject, of_pair_with_cache])
def test_backward_takes_one_cotangent_for_each_output(form, factor):
    report = tn.verify(form(factor), inputs=X, **QUICK)
    assert report.verdict == ("PASS" if factor == 1 else "FAIL"), report


def of_one_cache(factor, stack):
    kept = []

    def forward(x):
        kept.append(x)
        return np.sin(x)

    def backward(dy):
        return factor * dy * np.cos(kept.pop() if stack else kept[-1])

    return forward, backward


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("stack", [True, False])
def test_a_pair_whose_backward_is_given_dy_alone_has_one_cache(stack, factor):
    report = tn.verify(of_one_cache(factor, stack), inputs=X)
    assert [f.name for f in report.findings] == ["scaled by 2"][: factor - 1], report
