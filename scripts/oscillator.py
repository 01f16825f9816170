"""Solve u″ = −u, u(0) = 0, u′(0) = 1 with a network: derivatives of the network inside the loss.

    python scripts/oscillator.py

`tn.to_custom_vjp` gives the network to JAX with its hand-written backward pass: u′ is that pass, and u″ and the
gradient of the loss differentiate it. M. Raissi, P. Perdikaris, G. Karniadakis, Physics-informed neural networks, 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tinynet as tn

NET = tn.Sequential(tn.Linear(1, 16), tn.Tanh(), tn.Linear(16, 16), tn.Tanh(), tn.Linear(16, 1))
TIMES = np.linspace(0, 3, 32)


def residual(f: Callable[[Any, Any], Any], params: Any) -> Any:
    """Return the mean of (u″ + u)² over `TIMES`, and the squared errors at the start, of u(t) = f(params, t)."""

    def u(t: Any) -> Any:
        return f(params, jnp.reshape(t, (1, 1)))[0, 0]

    du = jax.grad(u)
    inside = jax.vmap(lambda t: jax.grad(du)(t) + u(t))(jnp.asarray(TIMES))
    return (inside**2).mean() + u(0.0) ** 2 + (du(0.0) - 1) ** 2


def solve(steps: int = 2000) -> Any:
    """Return the parameters after `steps` of Adam."""
    f, adam = tn.to_custom_vjp(NET), tn.Adam(tn.CosineDecay(1e-2, steps))

    @jax.jit
    def train(params: Any, state: Any) -> Any:
        def step(_: Any, carry: Any) -> Any:
            params, state = carry
            return adam.update(params, jax.grad(lambda p: residual(f, p))(params), state)

        return jax.lax.fori_loop(0, steps, step, (params, state))

    params = NET.init(np.random.default_rng(0))
    return train(params, adam.init(params))[0]


if __name__ == "__main__":
    u = tn.predict(NET, tn.map_leaves(np.asarray, solve()), TIMES[:, None])[:, 0]
    print(f"largest error of u on [0, 3]: {abs(u - np.sin(TIMES)).max():.1e}")
