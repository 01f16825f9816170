"""A tiny GPT whose every derivative is written by hand: it learns to write like Python's own manual.

    python scripts/tiny_gpt.py [--engine jax] [--epochs N]

It trains, has the gradients verified on live batches, and writes some text. `compare_gpt.py` sets it beside PyTorch.
The network is that of A. Radford et al., Language models are unsupervised multitask learners (GPT-2), 2019: characters
and places are embedded, each block is attention and two affine maps around a GELU, both behind a LayerNorm and with a
shortcut, and the table of the characters is also the output layer.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import numpy as np

import tinynet as tn

TEXT = "".join(c for c in "\n".join(topics.values()) if c == "\n" or " " <= c <= "~")[:110_000]
ALPHABET = sorted(set(TEXT))
CONTEXT, WIDTH, HEADS, BLOCKS, BATCH, LR = 32, 32, 4, 2, 32, 3e-3


@dataclass(frozen=True)
class Places(tn.Layer, samplewise=True):
    """Add a vector to each place of a sequence, y_t = x_t + W_t.

    Derivation. ∂E/∂x_t = δ_t, and as all samples share W, ∂E/∂W_t = Σ δ_t over the samples; 0 beyond the sequence.
    """

    t: int
    n: int

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Any:
        return {"W": tn.initializers.lecun_normal(rng, (self.t, self.n), dtype)}

    def forward(self, params: Any, x: Any) -> Any:
        return x + params["W"][: x.shape[1]], x

    def backward(self, params: Any, x: Any, dy: Any) -> Any:
        xp = tn.namespace(dy)
        return dy + 0, {"W": xp.pad(dy.sum(axis=0), ((0, self.t - dy.shape[1]), (0, 0)))}


def gpt(letters: int, context: int = CONTEXT, n: int = WIDTH, heads: int = HEADS, blocks: int = BLOCKS) -> tn.Layer:
    """Return the network: x (m, t) numbers of characters, y (m, t, letters) logits of the next one."""

    def block() -> list[tn.Layer]:
        attention = tn.Sequential(tn.LayerNorm(n), tn.MultiHeadAttention(n, heads, causal=True))
        affine = tn.Sequential(tn.LayerNorm(n), tn.Linear(n, 4 * n), tn.GELU(), tn.Linear(4 * n, n))
        return [tn.Residual(attention), tn.Residual(affine)]

    table = tn.Embedding(letters, n, initializer=tn.initializers.lecun_normal)
    middle = [layer for _ in range(blocks) for layer in block()]
    net = tn.Sequential(table, Places(context, n), *middle, tn.LayerNorm(n), tn.Linear(n, letters))
    return tn.Tied(net, {f"{2 * blocks + 3}.W": "0.W"})


def windows(text: str = TEXT, context: int = CONTEXT, seed: int = 0) -> tuple[Any, Any]:
    """Return (x, y): the text cut into windows, shuffled, as numbers, and each number's successor."""
    numbers = np.searchsorted(ALPHABET, list(text))
    starts = np.random.default_rng(seed).permutation(np.arange(0, len(numbers) - context, context))
    x = numbers[starts[:, None] + np.arange(context)]
    return x, numbers[starts[:, None] + np.arange(1, context + 1)]


def write(net: tn.Layer, params: Any, start: str, length: int, rng: np.random.Generator) -> str:
    """Return `start` and `length` more characters, each drawn from the network's distribution."""
    for _ in range(length):
        ids = np.searchsorted(ALPHABET, list(start[-CONTEXT:]))
        z = net.forward(params, ids[None])[0][0, -1].astype(np.float64)
        start += ALPHABET[rng.choice(len(z), p=np.exp(z - z.max()) / np.exp(z - z.max()).sum())]
    return start


def train(
    net: tn.Layer,
    x: Any,
    y: Any,
    params: Any = None,
    *,
    steps: int | None = None,
    epochs: int = 1,
    verify_every: int | None = None,
    engine: Any = "numpy",
) -> tuple[Any, list[float]]:
    """Return (result, losses of the steps) after `epochs` or after so many `steps`."""
    losses = []

    def note(step: Any) -> Any:
        losses.append(float(step.loss))
        return len(losses) == steps

    options = {"batch_size": BATCH, "shuffle": False, "engine": engine, "verify_every": verify_every}
    callbacks = [note] if steps else []
    loss, adam = tn.SoftmaxCrossEntropy("mean"), tn.Adam(LR)
    result = tn.fit(net, loss, x, y, params=params, optimizer=adam, epochs=epochs, step_callbacks=callbacks, **options)
    return result, losses


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["numpy", "jax"], default="numpy")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    net, (x, y) = gpt(len(ALPHABET)), windows()
    result, _ = train(net, x, y, epochs=args.epochs, engine=args.engine, verify_every=100)
    print(
        "loss per character:", np.round(result.history["loss"], 3), "; the gradients of every 100th batch are verified"
    )
    print(write(net, result.params, "The ", 300, np.random.default_rng(0)))


if __name__ == "__main__":
    main()
