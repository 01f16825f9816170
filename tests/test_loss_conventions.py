"""README's table "Who divides by what", row by row, against the libraries themselves and printed numbers."""

import warnings

import numpy as np
import pytest

import tinynet as tn

M, K = 6, 3


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((M, K)), rng.standard_normal((M, K))


def E(reduction, y_hat, y):
    return float(tn.SquaredError(reduction).forward(y_hat, y)[0])


def test_ours(samples):
    y_hat, y = samples
    S = sum((y_hat[i, k] - y[i, k]) ** 2 for i in range(M) for k in range(K))
    assert E("sum", y_hat, y) == pytest.approx(S / 2, rel=1e-14)
    assert E("mean", y_hat, y) == pytest.approx(S / (2 * M), rel=1e-14)


def test_nielsen_equation_6_is_our_mean(samples):
    y_hat, y = samples
    C = sum(np.linalg.norm(a - t) ** 2 for a, t in zip(y_hat, y, strict=True)) / (2 * M)
    assert E("mean", y_hat, y) == pytest.approx(C, rel=1e-14)


def test_mazur_printed_total_error_is_our_sum():
    outputs, targets = np.array([[0.75136507, 0.772928465]]), np.array([[0.01, 0.99]])
    assert E("sum", outputs, targets) == pytest.approx(0.298371109, abs=5e-10)


def test_torch_mean_divides_by_the_outputs_too_and_has_no_half(samples):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its rows of the table are not checked")
    y_hat, y = samples
    theirs = [torch.nn.MSELoss(reduction=r)(*map(torch.tensor, samples)).item() for r in ("mean", "sum")]
    assert theirs[0] == pytest.approx(2 / K * E("mean", y_hat, y), rel=1e-14)
    assert theirs[1] == pytest.approx(2 * E("sum", y_hat, y), rel=1e-14)


def test_keras_mean_squared_error_is_that_of_torch(samples, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed: its row of the table is not checked")
    y_hat, y = samples
    assert float(keras.losses.MeanSquaredError()(y, y_hat)) == pytest.approx(2 / K * E("mean", y_hat, y), rel=1e-6)


def test_scikit_learn_reports_one_kth_of_our_mean_but_follows_its_gradient():
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((M, 4)), rng.standard_normal((M, K))
    lr = 0.1
    model = MLPRegressor(
        hidden_layer_sizes=(5,),
        activation="logistic",
        solver="sgd",
        alpha=0,
        batch_size=M,
        learning_rate_init=lr,
        momentum=0,
        shuffle=False,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.partial_fit(x, y)
        (W1, W2), (b1, b2) = [W.copy() for W in model.coefs_], [b.copy() for b in model.intercepts_]
        model.partial_fit(x, y)
    net = tn.Sequential(tn.Linear(4, 5), tn.Sigmoid(), tn.Linear(5, K))
    params = {"W": W1.T, "b": b1}, {}, {"W": W2.T, "b": b2}
    loss, grads = tn.value_and_grads(net, tn.SquaredError("mean"), params, x, y)
    assert model.loss_ == pytest.approx(loss / K, rel=1e-12)
    updated, _ = tn.SGD(lr).update(params, grads, ())
    for i, layer in enumerate((0, 2)):
        np.testing.assert_allclose(updated[layer]["W"], model.coefs_[i].T, rtol=1e-12)
        np.testing.assert_allclose(updated[layer]["b"], model.intercepts_[i], rtol=1e-12)
