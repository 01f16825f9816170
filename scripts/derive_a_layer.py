"""A story: a layer is derived by hand, wrong the first time; the verifier names the mistake; then it trains.

    python scripts/derive_a_layer.py [--seed N] [--epochs N]

The layer is Swish with a slope of its own for each unit, a = z · σ(βz), where β is learned. Read the file from top to
bottom; running it prints what the verifier says of each attempt.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinynet as tn
from tinynet.arrays import Array, Params, namespace
from tinynet.checks import check_features


@dataclass(frozen=True)
class FirstAttempt(tn.Layer):
    """Swish, a = z · σ(βz), with β (n,) learned.

    On paper, with s = σ(βz) and σ′ = s (1 − s), for one sample:
        ∂a/∂z = s + βz · s (1 − s)                      the product rule
        ∂a/∂β = z · z · s (1 − s)                       only the second factor holds β
    so that, given da = ∂E/∂a:
        dz = da ⊗ (s + βz s (1 − s)),                   dβ = da ⊗ z² s (1 − s), over the samples of the batch
    """

    n: int

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        return {"β": np.ones(self.n, dtype)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Any]:
        check_features(self, x, self.n)
        s = _sigmoid(params["β"] * x)
        return x * s, (x, s)

    def backward(self, params: Params, cache: Any, da: Array) -> tuple[Array, Params]:
        z, s = cache
        slope = s * (1 - s)
        dz = da * (s + params["β"] * z * slope)
        dβ = (da * z * z * slope).mean(axis=0)
        return dz, {"β": dβ}


@dataclass(frozen=True)
class Swish(FirstAttempt):
    """The same, mended: one β serves every sample, E adds up over them, and so does its gradient.

    dβ = Σ_i da_i ⊗ z_i² s_i (1 − s_i)
    """

    def backward(self, params: Params, cache: Any, da: Array) -> tuple[Array, Params]:
        z, s = cache
        slope = s * (1 - s)
        dz = da * (s + params["β"] * z * slope)
        dβ = (da * z * z * slope).sum(axis=0)
        return dz, {"β": dβ}


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + namespace(x).tanh(0.5 * x))


def main() -> int:
    """Tell the story; exit with 1 if it does not end well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of every random number (default: 0)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training rows (default: 30)")
    args = parser.parse_args()

    print("1. Derived on paper, written down, and compared with jax.grad:\n")
    first = tn.verify(FirstAttempt(4), seed=args.seed)
    for finding in first.findings:
        print(finding)

    print("\n2. The sum over the batch, in place of the mean:\n")
    second = tn.verify(Swish(4), seed=args.seed)
    print(second)

    print("\n3. The verified layer in a network, on handwritten digits:\n")
    net = tn.Sequential(tn.Linear(64, 30), Swish(30), tn.Linear(30, 10), tn.Sigmoid())
    accuracy = _train(net, args.epochs, args.seed)
    print(f"   {accuracy:.1%} of the held-out digits after {args.epochs} epochs")
    return 0 if first.verdict == "FAIL" and second.ok and accuracy > 0.9 else 1


def _train(net: tn.Layer, epochs: int, seed: int) -> float:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, labels = load_digits(return_X_y=True)
    y = np.eye(10)[labels]
    x_train, x_test, y_train, y_test = train_test_split(
        (x / 16).astype(np.float32), y.astype(np.float32), test_size=0.2, random_state=seed, stratify=labels
    )
    result = tn.fit(
        net,
        tn.SquaredError("mean"),
        x_train,
        y_train,
        optimizer=tn.SGD(0.5),
        epochs=epochs,
        batch_size=10,
        seed=seed,
        progress=True,
    )
    y_hat, _ = net.forward(result.params, x_test)
    return float(np.mean(y_hat.argmax(axis=1) == y_test.argmax(axis=1)))


if __name__ == "__main__":
    raise SystemExit(main())
