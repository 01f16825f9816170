"""Rules of JAX's: the right one passes, and three wrong ones fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn

rng = np.random.default_rng(2)
X, W = rng.standard_normal((5, 4)), rng.standard_normal((4, 3))
QUICK = {"probes": ["rectangular", "batch 1"]}


def value(x, w):
    return jnp.tanh(x @ w)


def right(dy, x, w, a):
    dz = dy * (1 - a * a)
    return dz @ w.T, x.T @ dz


WRONG = [
    lambda dy, x, w, a: (right(dy, x, w, a)[0], right(dy, x, w, a)[1] / len(x)),
    lambda dy, x, w, a: (dy @ w.T, right(dy, x, w, a)[1]),
    lambda dy, x, w, a: (right(dy, x, w, a)[0], -right(dy, x, w, a)[1]),
]


def saving(x, w):
    a = value(x, w)
    return a, (x, w, a)


def a_rule(gradients):
    f = jax.custom_vjp(value)
    f.defvjp(saving, lambda kept, dy: gradients(dy, *kept))
    return f, (X, W)


def a_function_with_a_rule_inside(gradients):
    f, inputs = a_rule(gradients)
    return (lambda x, w: 2 * f(x, w)), inputs


def a_compiled_function(gradients):
    f, inputs = a_function_with_a_rule_inside(gradients)
    return jax.jit(f), inputs


def of_trees(gradients):
    f = jax.custom_vjp(lambda p, x: {"a": value(x, p["w"]), "more": (2 * value(x, p["w"]),)})

    def forward(p, x):
        a, kept = saving(x, p["w"])
        return {"a": a, "more": (2 * a,)}, kept

    def backward(kept, dy):
        dx, dw = gradients(dy["a"] + 2 * dy["more"][0], *kept)
        return {"w": dw}, dx

    f.defvjp(forward, backward)
    return f, ({"w": W}, X)


def with_an_argument_that_is_no_array(gradients):
    f = jax.custom_vjp(lambda function, x, w: function(x @ w), nondiff_argnums=(0,))
    f.defvjp(lambda function, x, w: saving(x, w), lambda function, kept, dy: gradients(dy, *kept))
    return f, (jnp.tanh, X, W)


@pytest.mark.parametrize("gradients", [right, *WRONG])
@pytest.mark.parametrize(
    "form",
    [a_rule, a_function_with_a_rule_inside, a_compiled_function, of_trees, with_an_argument_that_is_no_array],
)
def test_rules_in_reverse_mode(form, gradients):
    target, inputs = form(gradients)
    judged(tn.verify(target, inputs=inputs, **QUICK), gradients is right)


def push(t, x, w, a):
    return (t[0] @ w + x @ t[1]) * (1 - a * a)


@pytest.mark.parametrize(
    "rule",
    [
        push,
        lambda t, x, w, a: (t[0] @ w + x @ t[1] / len(x)) * (1 - a * a),
        lambda t, x, w, a: t[0] @ w + x @ t[1] * (1 - a * a),
        lambda t, x, w, a: (t[0] @ w - x @ t[1]) * (1 - a * a),
    ],
)
def test_rules_in_forward_mode(rule):
    f = jax.custom_jvp(value)
    f.defjvp(lambda args, tangents: (value(*args), rule(tangents, *args, value(*args))))
    judged(tn.verify(f, inputs=(X, W), **QUICK), rule is push)


def judged(report, is_right):
    assert len(report.compared) == 2
    assert report.verdict == ("PASS" if is_right else "FAIL"), report
    assert len(report.findings) == (0 if is_right else 1)
