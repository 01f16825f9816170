"""`scripts/tiny_gpt.py` and its twin in PyTorch."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_within, jit, random_params

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch):
    """The modules of the folder, importable by name as they are for whoever runs one of them."""
    monkeypatch.syspath_prepend(SCRIPTS)
    yield
    for name in ("tiny_gpt", "compare_gpt"):
        sys.modules.pop(name, None)


@pytest.fixture
def story(scripts):
    return importlib.import_module("tiny_gpt")


def test_every_gradient_of_the_network_is_that_of_jax(story):
    import jax

    net = story.gpt(7, context=6, n=4, heads=2, blocks=1)
    params, rng = random_params(net, np.random.default_rng(0)), np.random.default_rng(1)
    x, y = rng.integers(7, size=(2, 3, 5))
    loss = tn.SoftmaxCrossEntropy("mean")
    E, dparams = tn.value_and_grads(net, loss, params, x, y)
    with jax.enable_x64(True):
        value, grads = jit(jax.value_and_grad(lambda p: loss.forward(net.forward(p, x)[0], y)[0]))(params)
    assert_within(E, np.asarray(value))
    assert_within(dparams, jax.tree.map(np.asarray, grads), bound=256)


def test_windows_are_followed_by_themselves_one_character_on(story):
    x, y = story.windows("".join(story.ALPHABET), context=8)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert len(np.unique(x[:, 0])) == len(x)


def test_it_learns_with_both_engines_and_writes(story):
    net = story.gpt(len(story.ALPHABET), n=8, heads=2, blocks=1)
    x, y = story.windows()
    params = net.init(np.random.default_rng(0), np.float64)
    curves = [story.train(net, x, y, params, steps=12, verify_every=12, engine=e) for e in ("numpy", "jax")]
    (result, losses), (_, by_jax) = curves
    np.testing.assert_allclose(losses, by_jax, rtol=1e-12)
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    text = story.write(net, result.params, "The ", 40, np.random.default_rng(0))
    assert len(text) == 44
    assert set(text) <= set(story.ALPHABET)


def test_the_twin_in_torch_has_the_same_losses(scripts, story):
    pytest.importorskip("torch", reason="PyTorch is not installed: the tiny GPT is NOT compared with its twin here")
    twin = importlib.import_module("compare_gpt")
    net = story.gpt(len(story.ALPHABET), n=8, heads=4, blocks=2)
    x, y = story.windows()
    params = net.init(np.random.default_rng(0), np.float64)
    theirs = twin.losses_by_torch(params, x, y, 5)
    np.testing.assert_allclose(story.train(net, x, y, params, steps=5)[1], theirs, rtol=1e-12)
