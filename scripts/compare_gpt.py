"""The tiny GPT beside the same network in PyTorch: the same losses from the same parameters, and how long each takes.

    python scripts/compare_gpt.py curve.png

Needs `pip install 'tinynet-grad[plot,torch]'`.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
import torch
from tiny_gpt import ALPHABET, BATCH, HEADS, LR, gpt, train, windows

import tinynet as tn


def twin_in_torch(params: Any, heads: int = HEADS) -> Any:
    """Return (a function of x, its parameters): the same network made of torch's layers, with the same parameters."""
    (letters, n), blocks, nn = params[0]["W"].shape, list(zip(params[2:-2:2], params[3:-2:2], strict=True)), torch.nn
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    encoders = [nn.TransformerEncoderLayer(n, heads, 4 * n, **options) for _ in blocks]
    embeddings = [nn.Embedding(letters, n), nn.Embedding(len(params[1]["W"]), n)]
    parts = nn.ModuleList([*embeddings, *encoders, nn.LayerNorm(n), nn.Linear(n, letters)])
    parts[-1].weight = parts[0].weight
    parts.to(torch.from_numpy(params[0]["W"]).dtype)
    arrays = [params[0]["W"], params[1]["W"]]
    for (norm, attention), (norm_2, wide, _, narrow) in blocks:
        arrays += [*(attention[k] for k in ("W_in", "b_in", "W_out", "b_out")), *wide.values(), *narrow.values()]
        arrays += [*norm.values(), *norm_2.values()]
    for p, array in zip(parts.parameters(), [*arrays, *params[-2].values(), params[-1]["b"]], strict=True):
        p.data.copy_(torch.from_numpy(array))

    def forward(x: Any) -> Any:
        a, later = (
            parts[0](x) + parts[1].weight[: x.shape[1]],
            nn.Transformer.generate_square_subsequent_mask(x.shape[1]),
        )
        for encoder in encoders:
            a = encoder(a, src_mask=later.to(a.dtype))
        return parts[-1](parts[-2](a))

    return forward, parts.parameters()


def losses_by_torch(params: Any, x: Any, y: Any, steps: int | None = None) -> list[float]:
    """Train the twin likewise, in eager mode, and return the losses of the steps."""
    forward, weights = twin_in_torch(params)
    x, y, losses, adam = torch.from_numpy(x), torch.from_numpy(y), [], torch.optim.Adam(weights, LR)
    for i in range(0, len(x), BATCH)[:steps]:
        adam.zero_grad()
        E = torch.nn.functional.cross_entropy(forward(x[i : i + BATCH]).flatten(0, 1), y[i : i + BATCH].flatten())
        E.backward()
        adam.step()
        losses.append(E.item())
    return losses


def seconds_of_torch(params: Any, x: Any, y: Any) -> float:
    """Return the seconds of an epoch at the number of threads that suits torch best."""

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        began = time.perf_counter()
        losses_by_torch(params, x, y)
        return time.perf_counter() - began

    return min(seconds(threads) for threads in range(1, (os.cpu_count() or 1) + 1))


def compare(net: tn.Layer, x: Any, y: Any, path: str) -> None:
    """Plot the losses of both networks over 100 steps; print how far they differ, and the seconds of an epoch."""
    import matplotlib.pyplot as plt

    params = net.init(np.random.default_rng(0), np.float64)
    theirs = losses_by_torch(params, x, y, 100)
    plt.plot(theirs, label="PyTorch")
    for engine in ("numpy", "jax"):
        ours = train(net, x, y, params, steps=100, engine=engine)[1]
        plt.plot(ours, "--", label=f"tinynet, {engine}")
        print(f"{engine}: the losses of 100 steps differ by {max(map(abs, np.subtract(ours, theirs))):.1e} at most")
    plt.legend()
    plt.savefig(path)
    params = net.init(np.random.default_rng(0))
    runs = {e: train(net, x, y, params, epochs=2, engine=e)[0].history["seconds"] for e in ("numpy", "jax")}
    seconds = {e: float(since_start[1] - since_start[0]) for e, since_start in runs.items()}  # the first one compiles
    print("seconds of an epoch:", {**seconds, "torch, eager": seconds_of_torch(params, x, y)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plot", help="where to write the curves")
    x, y = windows()
    compare(gpt(len(ALPHABET)), x, y, parser.parse_args().plot)
