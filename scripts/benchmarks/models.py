"""Measure an epoch of networks as people train them today, beside torch, Keras and hand-written JAX with Optax.

    python scripts/benchmark.py models

Everyone trains the same network with Adam from the same parameters on the same batches in float32, and the losses of
the first epoch are compared (those of Keras, which draws its own parameters, are not). The hand-written JAX is one
compiled scan over the batches, as the JAX engine's. All take turns, as in `steps`; the first epoch, less a later one,
is what compiling takes. Peers that are not installed, and `torch.compile` where there is no C++ compiler, are left out.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

import tinynet as tn
from benchmarks.steps import CPUS, Contestant, by_threads, interleaved, torch_threads
from tinynet.arrays import Array, Params
from tinynet.training.batches import Batches
from tinynet.training.engines.numpy import NumpyEngine
from tinynet.training.engines.threads import step_work
from tinynet.trees import leaves

LR = 1e-3


@dataclass(frozen=True)
class Model:
    """A network of ours, its twins, and how it is trained: x (m, …), y integers (m,) or (m, t)."""

    net: tn.Layer
    x: Array
    y: Array
    batch: int
    torch: Callable[[Params], tuple[Callable[[Any], Any], list[Any]]]
    jax: Callable[[Params, Any], Any]
    keras: Callable[[], Any] | None = None

    def params(self) -> Params:
        return self.net.init(np.random.default_rng(0), np.float32)

    def data(self) -> Batches:
        return Batches(self.x, self.y, None, self.batch, None, np.float32)

    @property
    def batches(self) -> int:
        return len(self.x) // self.batch


def _drawn(shape: tuple[int, ...], classes: int, *, per_step: bool = False) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, np.float32), rng.integers(classes, size=shape[: 2 if per_step else 1])


def _filled(module: Any, arrays: list[Array]) -> Any:
    import torch

    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return module


def mlp() -> Model:
    """784-128-10 with ReLU."""
    x, y = _drawn((6400, 784), 10)

    def in_torch(params: Params) -> Any:
        from torch import nn

        module = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        module = _filled(module, [params[i][name] for i in (0, 2) for name in ("W", "b")])
        return module, list(module.parameters())

    def in_jax(params: Params, x: Any) -> Any:
        a = (x @ params[0]["W"].T + params[0]["b"]).clip(0)
        return a @ params[2]["W"].T + params[2]["b"]

    def in_keras() -> Any:
        from keras import Sequential, layers

        return Sequential([layers.Dense(128, "relu"), layers.Dense(10)])

    net = tn.Sequential(tn.Linear(784, 128), tn.ReLU(), tn.Linear(128, 10))
    return Model(net, x, y, 128, in_torch, in_jax, in_keras)


def conv() -> Model:
    """Images of 8 × 8, as the digits are: a convolution with 16 kernels, pooling, one affine map."""
    x, y = _drawn((1600, 1, 8, 8), 10)

    def in_torch(params: Params) -> Any:
        from torch import nn

        module = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )
        module = _filled(module, [params[i][name] for i in (0, 4) for name in ("W", "b")])
        return module, list(module.parameters())

    def in_jax(params: Params, x: Any) -> Any:
        from jax import lax

        z = lax.conv_general_dilated(x, params[0]["W"], (1, 1), "SAME") + params[0]["b"][:, None, None]
        a = lax.reduce_window(z.clip(0), -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return a.reshape(len(x), -1) @ params[4]["W"].T + params[4]["b"]

    def in_keras() -> Any:
        from keras import Sequential, layers

        order = "channels_last"  # the only one that Keras has on a CPU
        return Sequential(
            [
                layers.Permute((2, 3, 1)),
                layers.Conv2D(16, 3, padding="same", activation="relu", data_format=order),
                layers.MaxPooling2D(2, data_format=order),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )

    net = tn.Sequential(tn.Conv2d(1, 16, 3, padding=1), tn.ReLU(), tn.MaxPool2d(2), tn.Flatten(), tn.Linear(256, 10))
    return Model(net, x, y, 32, in_torch, in_jax, in_keras)


def gru() -> Model:
    """A GRU of 64 over 40 steps, and an affine map at each."""
    x, y = _drawn((640, 40, 16), 10, per_step=True)
    names = ("W_ih", "W_hh", "b_ih", "b_hh")

    def in_torch(params: Params) -> Any:
        from torch import nn

        module = nn.ModuleList([nn.GRU(16, 64, batch_first=True), nn.Linear(64, 10)])
        module = _filled(module, [*(params[0][name] for name in names), params[1]["W"], params[1]["b"]])
        return lambda x: module[1](module[0](x)[0]), list(module.parameters())

    def in_jax(params: Params, x: Any) -> Any:
        import jax
        from jax import numpy as jnp

        W_ih, W_hh, b_ih, b_hh = (params[0][name] for name in names)

        def step(h: Any, z: Any) -> Any:
            z_r, z_s, z_n = jnp.split(z, 3, axis=-1)
            u_r, u_s, u_n = jnp.split(h @ W_hh.T + b_hh, 3, axis=-1)
            r, s = jax.nn.sigmoid(z_r + u_r), jax.nn.sigmoid(z_s + u_s)
            h = (1 - s) * jnp.tanh(z_n + r * u_n) + s * h
            return h, h

        first = jnp.zeros((len(x), W_hh.shape[1]), x.dtype)
        _, h = jax.lax.scan(step, first, (x @ W_ih.T + b_ih).swapaxes(0, 1))
        return h.swapaxes(0, 1) @ params[1]["W"].T + params[1]["b"]

    def in_keras() -> Any:
        from keras import Sequential, layers

        return Sequential([layers.GRU(64, return_sequences=True), layers.Dense(10)])

    return Model(tn.Sequential(tn.GRU(16, 64), tn.Linear(64, 10)), x, y, 32, in_torch, in_jax, in_keras)


def gpt_block() -> Model:
    """A block of a GPT of width 64 with 4 heads over 32 places, and an affine map at each."""
    n, heads = 64, 4
    x, y = _drawn((640, 32, n), 10, per_step=True)

    def in_torch(params: Params) -> Any:
        from torch import nn

        block = nn.TransformerEncoderLayer(
            n, heads, 4 * n, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        module = nn.ModuleList([block, nn.Linear(n, 10)])
        (norm, attention), (norm_2, wide, _, narrow), out = params
        arrays = [attention[name] for name in ("W_in", "b_in", "W_out", "b_out")]
        arrays += [part[name] for part in (wide, narrow) for name in ("W", "b")]
        module = _filled(
            module,
            [*arrays, *(part[name] for part in (norm, norm_2) for name in ("gamma", "beta")), out["W"], out["b"]],
        )
        mask = nn.Transformer.generate_square_subsequent_mask(32)
        return lambda x: module[1](module[0](x, src_mask=mask)), list(module.parameters())

    def in_jax(params: Params, x: Any) -> Any:
        import jax
        from jax import numpy as jnp

        (norm, attention), (norm_2, wide, _, narrow), out = params

        def normal(a: Any, p: Any) -> Any:
            scaled = (a - a.mean(-1, keepdims=True)) / jnp.sqrt(a.var(-1, keepdims=True) + 1e-5)
            return p["gamma"] * scaled + p["beta"]

        def affine(a: Any, W: Any, b: Any) -> Any:
            return a @ W.T + b

        z = affine(normal(x, norm), attention["W_in"], attention["b_in"])
        q, k, v = (part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(z, 3, axis=-1))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        a = x + affine(mixed, attention["W_out"], attention["b_out"])
        wider = jax.nn.gelu(affine(normal(a, norm_2), wide["W"], wide["b"]), approximate=False)
        return affine(a + affine(wider, narrow["W"], narrow["b"]), out["W"], out["b"])

    attention = tn.Sequential(tn.LayerNorm(n), tn.MultiHeadAttention(n, heads, causal=True))
    feed = tn.Sequential(tn.LayerNorm(n), tn.Linear(n, 4 * n), tn.GELU(), tn.Linear(4 * n, n))
    net = tn.Sequential(tn.Residual(attention), tn.Residual(feed), tn.Linear(n, 10))
    return Model(net, x, y, 32, in_torch, in_jax)


def on_numpy(model: Model) -> Contestant:
    work = step_work(leaves(model.params()), model.batch)
    return _by_engine(NumpyEngine(model.net, tn.SoftmaxCrossEntropy("mean"), tn.Adam(LR), work, None), model)


def on_jax(model: Model) -> Contestant:
    from tinynet.training.engines.jax import JaxEngine

    return _by_engine(JaxEngine(model.net, tn.SoftmaxCrossEntropy("mean"), tn.Adam(LR)), model)


def _by_engine(engine: Any, model: Model) -> Contestant:
    data, rng = model.data(), np.random.default_rng(0)
    with engine.session():
        carry = engine.start(model.params())

    def epoch() -> list[float]:
        nonlocal carry
        carry, losses = engine.epoch(carry, data, rng)
        return [float(E) for E, _ in losses]

    return Contestant(epoch, prepare=engine.session)


def by_hand(model: Model) -> Contestant:
    import jax
    import optax

    optimizer = optax.adam(LR)
    params = jax.tree.map(jax.numpy.asarray, model.params())
    state = optimizer.init(params)
    shape = (model.batches, model.batch)
    x, y = (jax.numpy.asarray(a).reshape(*shape, *a.shape[1:]) for a in (model.x, model.y))

    def loss(params: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model.jax(params, x), y).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def train(params: Any, state: Any, x: Any, y: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            params, state = carry
            E, grads = jax.value_and_grad(loss)(params, *batch)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), E

        return jax.lax.scan(step, (params, state), (x, y))

    def epoch() -> Any:
        nonlocal params, state
        (params, state), losses = train(params, state, x, y)
        return np.asarray(losses)

    return Contestant(epoch)


def by_torch(model: Model, threads: int, *, compiled: bool = False) -> Contestant:
    import torch

    if compiled and not shutil.which(os.environ.get("CXX", "g++")):
        raise ImportError("no C++ compiler")
    forward, weights = model.torch(model.params())
    forward = torch.compile(forward) if compiled else forward
    optimizer = torch.optim.Adam(weights, LR)
    x, y = torch.from_numpy(model.x).split(model.batch), torch.from_numpy(model.y).split(model.batch)

    def epoch() -> list[float]:
        losses = []
        for part, targets in zip(x, y, strict=True):
            optimizer.zero_grad()
            E = torch.nn.functional.cross_entropy(forward(part).flatten(0, -2), targets.flatten())
            E.backward()
            optimizer.step()
            losses.append(E.detach())
        return [E.item() for E in losses]

    return Contestant(epoch, prepare=partial(torch_threads, threads))


def by_keras(model: Model) -> Contestant:
    if model.keras is None:
        raise ImportError("this network is none of its own")
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    net = model.keras()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(LR), loss)

    def epoch() -> None:
        net.fit(model.x, model.y, batch_size=model.batch, epochs=1, shuffle=False, verbose=0)

    return Contestant(epoch)


MODELS = {
    "MLP 784-128-10": mlp,
    "conv net, 8 × 8": conv,
    "GRU of 64, t = 40": gru,
    "GPT block of 64, t = 32": gpt_block,
}
CONTESTANTS: dict[str, Callable[[Model], Contestant]] = {
    "tinynet": on_numpy,
    "tinynet, engine=jax": on_jax,
    "JAX and Optax by hand, same scan": by_hand,
    **by_threads("torch eager", by_torch),
    "torch.compile": partial(by_torch, threads=CPUS, compiled=True),
    "Keras on JAX": by_keras,
}


def measure_one(model: Model, rounds: int, bar: Any) -> dict[str, dict[str, float]]:
    """Return what a step and compiling take each contestant.

    Raises:
        RuntimeError: the losses of a contestant's first epoch are not ours.
    """
    there, first, losses = {}, {}, {}
    for name, make in CONTESTANTS.items():
        try:
            contestant = make(model)
            with contestant.prepare():
                start = time.perf_counter()
                losses[name] = contestant.epoch()
                first[name] = time.perf_counter() - start
        except ImportError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
            continue
        there[name] = contestant
    for name, found in losses.items():
        if found is not None and not np.allclose(found, losses["tinynet"], rtol=1e-3):
            raise RuntimeError(
                f"{name} arrives elsewhere: {found[-1]:.4f} after an epoch, not {losses['tinynet'][-1]:.4f}"
            )
    us = interleaved(model.batches, there, rounds, bar)
    return {
        name: {"us": us[name], "compile_s": max(0.0, first[name] - us[name] * model.batches / 1e6)} for name in there
    }


def measure(*, rounds: int, quick: bool) -> dict[str, Any]:
    """Measure and print a step of each network."""
    names = list(MODELS)[: 1 if quick else None]
    with tqdm(unit="round", leave=False, disable=not sys.stderr.isatty()) as bar:
        figures = {name: measure_one(MODELS[name](), rounds, bar) for name in names}
    print("\nMicroseconds a step with Adam, median; (how many times tinynet's better engine); seconds to compile")
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for contestant in CONTESTANTS:
        print(f"| {contestant} | " + " | ".join(_cell(figures[name], contestant) for name in names) + " |")
    return {"models": figures}


def _cell(row: dict[str, dict[str, float]], contestant: str) -> str:
    if contestant not in row:
        return "–"
    ours = min(row[name]["us"] for name in ("tinynet", "tinynet, engine=jax") if name in row)
    us, compile_s = row[contestant]["us"], row[contestant]["compile_s"]
    return f"{us:,.0f} ({us / ours:.2f}×)" + (f", {compile_s:.1f} s" if compile_s > 0.1 else "")
