"""Back-propagation by hand: the loss and its gradient, forward and then backward."""

from __future__ import annotations

from typing import Any

from tinynet.arrays import Array, Cache, Params, State, describe
from tinynet.layers import Layer
from tinynet.layers.layer import forward_with_state
from tinynet.losses import Loss
from tinynet.trees import leaves_with_paths, map_leaves


def value_and_grads(
    net: Layer,
    loss: Loss,
    params: Params,
    x: Any,
    y: Any,
    *,
    weights: Array | None = None,
    dE: float = 1.0,
    state: State = None,
) -> tuple[Array, Params]:
    """Return (E, dparams) of E = loss(net(params, x), y), every derivative by hand.

    With `weights` w the samples join as E = Σ w_i E_i, times 1/m where the loss is a mean.

    Shapes:
        x (m, …), y what the loss takes, each an array or a tuple or dict of arrays; weights (m,); E a scalar; dparams
        has the structure of params and is scaled by dE. `state` is that of a network whose layers read one.

    Raises:
        TypeError, ValueError: whatever the layers and the loss raise on input that does not fit.
    """
    E, dparams, _ = backpropagate(net, loss, params, x, y, weights=weights, dE=dE, state=state)
    return E, dparams


def backpropagate(
    net: Layer, loss: Loss, params: Params, x: Any, y: Any, *, weights: Array | None, dE: Any, state: State
) -> tuple[Array, Params, Cache]:
    """Return (E, dparams, cache): what `value_and_grads` does, and what the state of the layers follows from."""
    y_hat, cache = forward_with_state(net, params, x, state)
    E, residual = loss.forward(y_hat, y)
    dy_hat = loss.backward(residual, dE)
    if weights is not None:
        E = (weights * loss.each(y_hat, y)).sum() / (len(weights) if loss.reduction == "mean" else 1)
        dy_hat = map_leaves(lambda d: d * weights.reshape(-1, *(1,) * (d.ndim - 1)), dy_hat)  # ∂(Σ w_i E_i)/∂ŷ_i
    return E, net.param_grads(params, cache, dy_hat), cache


def check_like_params(what: str, tree: Params, params: Params) -> None:
    """Raise TypeError or ValueError unless `tree` has the structure, shapes and dtypes of `params`.

    Broadcasting would hide a gradient of another shape; one of another dtype would change that of the parameter.
    """
    expected, given = (dict(leaves_with_paths(t)) for t in (params, tree))
    for path, p in expected.items():
        if path not in given:
            raise ValueError(f"fit: there is no {what} params{path}; expected one for each parameter")
        if describe(given[path]) != describe(p):
            error = TypeError if getattr(given[path], "shape", None) == p.shape else ValueError
            raise error(
                f"fit: the {what} params{path} is {describe(given[path])}; expected {describe(p)}, as the parameter is"
            )
    if extra := sorted(given.keys() - expected.keys()):
        raise ValueError(f"fit: there is a {what} params{extra[0]}, which is no parameter")
