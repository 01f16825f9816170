"""The layers that walk through a sequence: what RNN, GRU and LSTM have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tinynet.arrays import Array, Cache, Params, namespace, owned_copy, rows, scan
from tinynet.checks import check_lengths, check_param, check_same_shape, check_sequences, convert_ints
from tinynet.initializers import Initializer, glorot_uniform
from tinynet.layers.layer import Layer


@dataclass(frozen=True)
class Recurrent(Layer, samplewise=True):
    """A state h that each step computes from its input and the state before: h_t = step(z_t, u_t, h_(t−1)).

    Args:
        n_in: entries of an input.
        n_out: h, entries of a state; the first one is 0.
        initializer: draws W_ih and W_hh, a keyword; the biases start at 0.

    Shapes:
        The input is x (m, t, n_in), or a tuple (x, lengths) with lengths (m,) integers from 0 to t; y (m, t, h) holds
        all states. With G gates, W_ih (G h, n_in), W_hh (G h, h), b_ih and b_hh (G h,), as in torch.

    Derivation. z_t = W_ih x_t + b_ih needs no state and is one product for all steps; u_t = W_hh h_(t−1) + b_hh.
    Going back, step t receives ∂E/∂h_t by two ways, from y_t and from step t + 1, and gives δ_t = ∂E/∂z_t,
    ε_t = ∂E/∂u_t and what reaches h_(t−1) beside u_t. Then
        ∂E/∂h_(t−1) gains W_hhᵀ ε_t                                              as in (22)
        ∂E/∂W_ih = Σ_t δ_t x_tᵀ,   ∂E/∂W_hh = Σ_t ε_t h_(t−1)ᵀ                   (24), one product after the walk
        ∂E/∂b_ih = Σ_t δ_t,        ∂E/∂b_hh = Σ_t ε_t                            (26)
        ∂E/∂x_t  = W_ihᵀ δ_t                                                     in (22)
    From its length on a sample's y is 0, as torch's packed sequences have it: nothing comes back from there, so δ and
    ε are 0 too. `lengths` does not vary continuously: its gradient is None.

    Source: P. J. Werbos, Backpropagation through time, Proc. IEEE 78 (1990).

    Raises:
        TypeError, ValueError: a size is not a positive int; x, lengths, dy or a parameter has another shape or kind.
    """

    gates: ClassVar[int]
    n_in: int
    n_out: int
    initializer: Initializer = field(default=glorot_uniform, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        convert_ints(self, "n_in", "n_out")

    def start(self, h: Array) -> tuple[Array, ...]:
        """Return the carry before the first step, given h_0; h comes first in it."""
        return (h,)

    @abstractmethod
    def step(self, carry: tuple[Array, ...], z: Array, u: Array) -> tuple[tuple[Array, ...], Any]:
        """Return the next carry and what `step_back` needs of this step."""

    @abstractmethod
    def step_back(self, dcarry: tuple[Array, ...], kept: Any) -> tuple[tuple[Array, ...], Array, Array]:
        """Return ∂E/∂(carry before) without what passes through u, δ = ∂E/∂z and ε = ∂E/∂u, given ∂E/∂(carry after)."""

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Params:
        n = self.gates * self.n_out
        W_ih, W_hh = (self.initializer(rng, (n, columns), dtype) for columns in (self.n_in, self.n_out))
        return {"W_ih": W_ih, "W_hh": W_hh, "b_ih": np.zeros(n, dtype), "b_hh": np.zeros(n, dtype)}

    def forward(self, params: Params, x: Any) -> tuple[Array, Cache]:
        W_ih, W_hh, b_ih, b_hh = self._params(params)
        x, lengths = x if isinstance(x, tuple) else (x, None)
        check_sequences(self, x, self.n_in)
        xp, inside = namespace(x), None
        x = x.swapaxes(0, 1)
        if lengths is not None:
            check_lengths(self, lengths, x.shape[1], len(x))
            inside = (xp.arange(len(x))[:, None] < lengths)[..., None]
            x = xp.where(inside, x, 0)  # padding may hold anything
        z = x @ W_ih.T  # (18)
        z += b_ih

        def step(carry: tuple[Array, ...], z: Array) -> Any:
            carry, kept = self.step(carry, z, carry[0] @ W_hh.T + b_hh)
            return carry, (carry[0], kept)

        _, (h, kept) = scan(step, self.start(xp.zeros((x.shape[1], self.n_out), dtype=z.dtype)), z)
        y = h if inside is None else xp.where(inside, h, 0)
        return owned_copy(y.swapaxes(0, 1)), (x, h, kept, inside)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Any, Params]:
        δ, dparams = self._grads(params, cache, dy)
        dx = (δ @ params["W_ih"]).swapaxes(0, 1)  # (22)
        return dx if cache[-1] is None else (dx, None), dparams

    def param_grads(self, params: Params, cache: Cache, dy: Array) -> Params:
        return self._grads(params, cache, dy)[1]

    def _grads(self, params: Params, cache: Cache, dy: Array) -> tuple[Array, Params]:
        x, h, kept, inside = cache
        W_hh, (T, m, _) = self._params(params)[1], h.shape
        check_same_shape(self, "dy", dy, (m, T, self.n_out), "the output")
        xp, dy = namespace(dy), dy.swapaxes(0, 1)
        if inside is not None:
            dy = xp.where(inside, dy, 0)

        def step_back(dcarry: tuple[Array, ...], xs: Any) -> Any:
            dy, kept = xs
            (dh, *others), δ, ε = self.step_back((dcarry[0] + dy, *dcarry[1:]), kept)
            return (dh + ε @ W_hh, *others), (δ, ε)  # (22)

        nothing = xp.zeros((1, m, self.n_out), dtype=h.dtype)
        _, (δ, ε) = scan(step_back, self.start(nothing[0]), (dy, kept), reverse=True)
        Δ, Δ_hh, before = rows(δ), rows(ε), rows(xp.concatenate([nothing, h])[:T])
        dW_ih, dW_hh = Δ.T @ rows(x), Δ_hh.T @ before  # (24)
        return δ, {"W_ih": dW_ih, "W_hh": dW_hh, "b_ih": Δ.sum(axis=0), "b_hh": Δ_hh.sum(axis=0)}  # (26)

    def _params(self, params: Params) -> tuple[Array, ...]:
        n = self.gates * self.n_out
        shapes = {"W_ih": (n, self.n_in), "W_hh": (n, self.n_out), "b_ih": (n,), "b_hh": (n,)}
        return tuple(check_param(self, params, name, shape) for name, shape in shapes.items())
