"""Right code as researchers write it: it is right, and the verifier does not accuse it."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.verification.researchers import (
    attention,
    blocks,
    contrast,
    functions,
    gates,
    heads,
    likelihoods,
    memory,
    recurrence,
)  # fmt: skip
from tinynet.trees import leaves, map_leaves

LAYERS = {
    name: made
    for module in (attention, gates, likelihoods, memory, blocks, contrast, heads, recurrence)
    for name, made in module.LAYERS.items()
}


def difference(f, args, dy, at, v, h=1e-6):
    """The derivative of ⟨dy, f⟩ by args[at] along v, by a central difference."""

    def along(t):
        moved = list(args)
        moved[at] = map_leaves(lambda a, w: a + t * w, args[at], v)
        return sum(float((np.asarray(y) * d).sum()) for y, d in zip(leaves(f(*moved)), leaves(dy), strict=True))

    return (along(h) - along(-h)) / (2 * h)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_are_right_by_jax_vjp(name):
    layer, shapes = LAYERS[name]
    rng = np.random.default_rng(0)
    for shape in shapes:
        params, x = layer.init(rng, np.float64), rng.standard_normal(shape)
        y, cache = layer.forward(params, x)
        dy = rng.standard_normal(y.shape)
        dx, dparams = layer.backward(params, cache, dy)
        assert dparams.keys() == params.keys()
        with jax.enable_x64(True):
            exact_params, exact_x = jax.vjp(lambda p, x: layer.forward(p, x)[0], params, x)[1](dy)
        np.testing.assert_allclose(dx, exact_x, rtol=1e-10, atol=1e-12)
        for key, exact in exact_params.items():
            np.testing.assert_allclose(dparams[key], exact, rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", functions.FUNCTIONS)
def test_the_functions_are_right_by_differences(name):
    (forward, backward), examples = functions.FUNCTIONS[name]
    rng = np.random.default_rng(0)
    for example in examples:
        given = rng.standard_normal(example) if isinstance(example, tuple) and isinstance(example[0], int) else example
        args = given if isinstance(given, tuple) else (given,)
        dy = map_leaves(lambda y: rng.standard_normal(np.shape(y)), forward(*args))
        for at, g in enumerate(backward(args, dy)):
            v = map_leaves(lambda a: rng.standard_normal(a.shape), args[at])
            along = sum(float((a * b).sum()) for a, b in zip(leaves(g), leaves(v), strict=True))
            np.testing.assert_allclose(along, difference(forward, args, dy, at, v), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["GLU", "batch normalisation", "squeeze and excitation"])
def test_a_right_layer_is_not_accused(name):
    layer, shapes = LAYERS[name]
    report = tn.verify(layer, inputs=shapes[0])
    assert report.verdict == "PASS", report
