"""Rules given to autograd with `defvjp`, each beside JAX's derivative of the function below them."""

import numpy as np
import pytest

from tests.verification.adapters.judge import errors
from tinynet.verification.adapters.subject import MISSING, TargetError

anp = pytest.importorskip("autograd.numpy")
extend = pytest.importorskip("autograd.extend")
from tinynet.verification.adapters.autograd import adapt_autograd  # noqa: E402

rng = np.random.default_rng(3)
x, w = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))


def adapt(target, inputs):
    return adapt_autograd(target, inputs, None, rng)


def logsumexp(maker):
    @extend.primitive
    def lse(x):
        top = x.max(axis=1, keepdims=True)
        return top[:, 0] + anp.log(anp.sum(anp.exp(x - top), axis=1))

    extend.defvjp(lse, maker)
    return lse


def affine(*makers):
    @extend.primitive
    def tanh_of_product(x, w):
        return anp.tanh(anp.dot(x, w.T))

    extend.defvjp(tanh_of_product, *makers)
    return tanh_of_product


def pair(maker):
    return (lambda x: np.sin(x) * x, maker)


def dx(ans, x, w):
    return lambda g: anp.dot(g * (1 - ans**2), w)


def dw(ans, x, w):
    return lambda g: anp.dot((g * (1 - ans**2)).T, x)


FORMS = {
    "primitive": (
        logsumexp,
        x,
        (lambda ans, x: lambda g: g[:, None] * anp.exp(x - ans[:, None]),),
        [
            (lambda ans, x: lambda g: 2 * g[:, None] * anp.exp(x - ans[:, None]),),
            (lambda ans, x: lambda g: g[:, None] * anp.exp(x),),
            (lambda ans, x: lambda g: g,),
        ],
    ),
    "primitive of two arguments": (
        affine,
        (x, w),
        (dx, dw),
        [(dx, lambda ans, x, w: lambda g: dw(ans, x, w)(g) / 5), (dw, dx), (dx, None)],
    ),
    "function and vjp": (
        pair,
        x,
        (lambda ans, x: lambda g: g * (np.cos(x) * x + np.sin(x)),),
        [
            (lambda ans, x: lambda g: g * np.cos(x) * x,),
            (lambda ans, x: lambda g: -g * (np.cos(x) * x + np.sin(x)),),
            (lambda ans, x: lambda g: g * (ans + np.cos(x)),),
        ],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_right_rule_agrees_with_the_oracle(form):
    make, inputs, right, _ = FORMS[form]
    assert max(errors(adapt(make(*right), inputs)).values()) < 1e-14


@pytest.mark.parametrize(("form", "which"), [(form, i) for form in FORMS for i in range(3)])
def test_a_wrong_rule_does_not(form, which):
    make, inputs, _, wrong = FORMS[form]
    assert max(errors(adapt(make(*wrong[which]), inputs)).values()) > 1e-3


def test_an_argument_that_has_no_rule_is_missing_and_the_others_are_not():
    subject = adapt(affine(dx), (x, w))
    session = subject.start()
    y, context = session.forward(subject.args)
    grads = session.backward(context, np.ones_like(y))
    assert grads["w"] is MISSING
    np.testing.assert_allclose(grads["x"], (1 - np.tanh(x @ w.T) ** 2) @ w)


def test_a_primitive_without_a_rule_is_refused_and_another_function_is_not_autograds():
    with pytest.raises(TargetError, match="is a primitive of autograd without a rule"):
        adapt(extend.primitive(lambda x: x), x)
    assert adapt(np.sin, x) is None
    assert adapt((np.sin, lambda args, dy: dy), x) is None
    with pytest.raises(TargetError, match="params= has W"):
        adapt_autograd(affine(dx, dw), (x, w), {"W": w}, rng)
