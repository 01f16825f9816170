"""thinc Models: what backprop returns and accumulates, beside derivatives of their forward pass."""

import numpy as np
import pytest

from tests.verification.adapters.judge import errors
from tinynet.verification.adapters.subject import MISSING, TargetError
from tinynet.verification.adapters.thinc import adapt_thinc

thinc = pytest.importorskip("thinc.api")
rng = np.random.default_rng(6)
x = rng.standard_normal((5, 3))


def adapt(target, inputs=x, params=None):
    return adapt_thinc(target, inputs, params, np.random.default_rng(1))


def dense(gradient):
    """tanh(X Wᵀ + b); `gradient` gives dX and what is added to the gradients of W and b."""

    def forward(model, X, is_train):
        W, b = model.get_param("W"), model.get_param("b")
        Y = np.tanh(X @ W.T + b)

        def backprop(dY):
            dX, dW, db = gradient(dY, Y, X, W)
            model.inc_grad("W", dW)
            model.inc_grad("b", db)
            return dX

        return Y, backprop

    params = {"W": np.linspace(-1, 1, 12, dtype="f").reshape(4, 3), "b": np.zeros(4, "f")}
    return thinc.Model("dense", forward, params=params)


def right(dY, Y, X, W):
    dZ = dY * (1 - Y * Y)
    return dZ @ W, dZ.T @ X, dZ.sum(axis=0)


def inside(gradient):
    return thinc.chain(thinc.LayerNorm(3), dense(gradient), thinc.Linear(2))


WRONG = [
    lambda dY, Y, X, W: (right(dY, Y, X, W)[0], right(dY, Y, X, W)[1], dY.sum(axis=0)),
    lambda dY, Y, X, W: (right(dY, Y, X, W)[0], right(dY, Y, X, W)[1] / len(X), right(dY, Y, X, W)[2]),
    lambda dY, Y, X, W: (dY @ W, *right(dY, Y, X, W)[1:]),
]


@pytest.mark.parametrize(("make", "figure"), [(dense, 1e-14), (inside, 1e-9)])
def test_a_right_model_agrees_with_the_oracle(make, figure):
    assert max(errors(adapt(make(right))).values()) < figure


@pytest.mark.parametrize("make", [dense, inside])
@pytest.mark.parametrize("gradient", WRONG)
def test_a_wrong_model_does_not(make, gradient):
    assert max(errors(adapt(make(gradient))).values()) > 1e-3


def test_names_values_and_lazy_initialization():
    model = inside(right)
    subject = adapt(model)
    assert list(subject.args) == [
        "X",
        "params.0.G",
        "params.0.b",
        "params.1.W",
        "params.1.b",
        "params.2.W",
        "params.2.b",
    ]
    assert subject.inputs == ("X",)
    assert model.layers[2].has_param("W") is None  # the model itself is not initialized
    assert np.any(subject.args["params.2.b"])  # zeros that it would start from hide what they multiply
    assert not np.any(adapt(dense(right)).args["params.b"])
    assert np.all(adapt(dense(right), x, {"b": np.ones(4)}).args["params.b"] == 1)


def test_accumulated_gradients_are_read_as_differences():
    session = adapt(dense(right)).start()
    subject = adapt(dense(right))
    _, context = session.forward(subject.args)
    first = session.backward(context, np.ones((5, 4)))
    _, context = session.forward(subject.args)
    second = session.backward(context, np.ones((5, 4)))
    np.testing.assert_allclose(second["params.W"], first["params.W"], rtol=1e-12)


def test_a_gradient_that_is_not_accumulated_is_missing():
    def forward(model, X, is_train):
        W = model.get_param("W")
        return X * W, lambda dY: dY * W

    subject = adapt(thinc.Model("scale", forward, params={"W": np.ones(3, "f")}))
    session = subject.start()
    _, context = session.forward(subject.args)
    assert session.backward(context, np.ones_like(x))["params.W"] is MISSING


def test_a_layer_that_stands_in_two_places_has_its_parameters_once():
    layer = thinc.Linear(3, 3)
    subject = adapt(thinc.chain(layer, layer))
    assert list(subject.args) == ["X", "params.0.W", "params.0.b"]
    assert max(errors(subject).values()) < 1e-9


def test_lists_of_arrays_are_one_argument():
    subject = adapt(thinc.with_array(thinc.Linear(2, 3)), [x, x[:2]])
    assert subject.inputs == ("X.0", "X.1")
    assert max(errors(subject).values()) < 1e-9


def test_what_does_not_fit_is_refused():
    assert adapt(object()) is None
    with pytest.raises(TargetError, match=r"dense: params= has V of shape \(4,\); expected one of W, b"):
        adapt(dense(right), x, {"V": np.ones(4)})
    with pytest.raises(TargetError, match=r"W of shape \(4,\); expected shape \(4, 3\)"):
        adapt(dense(right), x, {"W": np.ones(4)})
    with pytest.raises(TargetError, match=r"linear: initialize\(X=…\) raises"):
        adapt(thinc.Linear(2), {"a": x})
