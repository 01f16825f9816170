"""SoftmaxCrossEntropy of integer targets: one-hot rows in another form, ignored ones, smoothing, weights."""

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tests.reference import assert_within, jit

RNG = np.random.default_rng(0)
Z, Y = RNG.normal(size=(4, 3, 5)), RNG.integers(5, size=(4, 3))
W = RNG.uniform(size=(4, 3))


def value_and_gradient(loss, z, y):
    E, cache = loss.forward(z, y)
    return E, loss.backward(cache, 2.0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_stand_for_one_hot_rows(reduction, smoothing, kind):
    loss = tn.SoftmaxCrossEntropy(reduction, label_smoothing=smoothing)
    got, expected = value_and_gradient(loss, Z, Y.astype(kind)), value_and_gradient(loss, Z, np.eye(5)[Y])
    assert_within(got, expected, bound=0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("y", [Y, np.eye(5)[Y], np.where(Y == 1, -1, Y)], ids=["integers", "rows", "ignored"])
@pytest.mark.parametrize("weighted", [False, True])
def test_backward_is_the_gradient_of_forward(reduction, y, weighted):
    loss = tn.SoftmaxCrossEntropy(reduction, ignore_index=-1, label_smoothing=0.1)
    target = (y, W) if weighted else y
    with jax.enable_x64(True):
        E, dz = jit(jax.value_and_grad(lambda z: 2 * loss.forward(z, target)[0]))(Z)
    got = value_and_gradient(loss, Z, target)
    assert_within(got, (np.asarray(E) / 2, np.asarray(dz)))


def test_equals_optax_with_weights_and_ignored_tokens():
    y = np.where(Y == 1, -1, Y)
    with jax.enable_x64(True):
        each = np.asarray(optax.softmax_cross_entropy_with_integer_labels(Z, np.maximum(y, 0)))
    kept = W * (y >= 0)
    assert_within(tn.SoftmaxCrossEntropy(ignore_index=-1).forward(Z, (y, W))[0], (kept * each).sum())
    mean, _ = tn.SoftmaxCrossEntropy("mean", ignore_index=-1).forward(Z, (y, W))
    assert_within(mean, (kept * each).sum() / (y >= 0).sum())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_dtype_is_that_of_the_logits(dtype):
    loss = tn.SoftmaxCrossEntropy("mean", ignore_index=0, label_smoothing=0.1)
    E, dz = value_and_gradient(loss, Z.astype(dtype), (Y, W))
    assert E.dtype == dz.dtype == dtype


def test_where_all_is_ignored_the_loss_is_0():
    E, dz = value_and_gradient(tn.SoftmaxCrossEntropy("mean", ignore_index=-1), Z, np.full((4, 3), -1))
    assert E == 0
    assert not dz.any()


def test_samples_one_by_one():
    loss = tn.SoftmaxCrossEntropy()
    np.testing.assert_allclose(loss.each(Z, Y), [loss.forward(z, y)[0] for z, y in zip(Z, Y, strict=True)])
    np.testing.assert_allclose(loss.each(Z, (Y, W)).sum(), loss.forward(Z, (Y, W))[0])


@pytest.mark.parametrize("y", [np.array([1]), np.array([[0.0, 1.0, 0.0]])], ids=["integer", "row"])
def test_an_infinite_logit_without_weight_counts_nothing(y):
    z = np.array([[-np.inf, 0.0, 1.0]])
    E, cache = tn.SoftmaxCrossEntropy().forward(z, y)
    np.testing.assert_allclose(E, np.log1p(np.e))
    np.testing.assert_allclose(tn.SoftmaxCrossEntropy().backward(cache), [[0, 1 / (1 + np.e) - 1, np.e / (1 + np.e)]])
    with jax.enable_x64(True):
        assert np.isfinite(jax.grad(lambda z: tn.SoftmaxCrossEntropy().forward(z, y)[0])(z)).all()
    E, cache = tn.BinaryCrossEntropy().forward(np.array([[-np.inf, np.inf]]), np.array([[0.0, 1.0]]))
    assert E == 0
    np.testing.assert_array_equal(tn.BinaryCrossEntropy().backward(cache), 0)


def test_weights_and_threads_ask_whether_samples_add_up():
    assert tn.SoftmaxCrossEntropy("mean").samplewise()
    assert tn.SoftmaxCrossEntropy("sum", ignore_index=0).samplewise()
    assert not tn.SoftmaxCrossEntropy("mean", ignore_index=0).samplewise()


def test_bad_input_is_named():
    loss = tn.SoftmaxCrossEntropy()
    for y, message in (
        (Y[:, :2], r"y has shape \(4, 2\); expected \(4, 3\) for y_hat of shape \(4, 3, 5\)"),
        (Y + 1, r"y has the value 5; expected 0 to 4; use ignore_index for samples without a class"),
        (Y - 1, r"y has the value -1; expected 0 to 4"),
        ((Y, W[:2]), r"the weights in y has shape \(2, 3\); expected \(4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss.forward(Z, y)
    with pytest.raises(ValueError, match=r"label_smoothing is 1.0; expected 0 <= label_smoothing < 1"):
        tn.SoftmaxCrossEntropy(label_smoothing=1.0)
    with pytest.raises(TypeError, match=r"ignore_index is 1.5; expected an int"):
        tn.SoftmaxCrossEntropy(ignore_index=1.5)
