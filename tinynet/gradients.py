"""Back-propagation by hand: the loss and its gradient, forward and then backward."""

from __future__ import annotations

from tinynet.arrays import Array, Params
from tinynet.layers import Layer
from tinynet.losses import Loss


def value_and_grads(
    net: Layer,
    loss: Loss,
    params: Params,
    x: Array,
    y: Array,
    *,
    weights: Array | None = None,
    dE: float = 1.0,
) -> tuple[Array, Params]:
    """Return (E, dparams) of E = loss(net(params, x), y), every derivative by hand.

    With `weights` w the samples join as E = Σ w_i E_i, times 1/m where the loss is a mean.

    Shapes:
        x (m, …), y of the shape of the network's output, weights (m,); E a scalar; dparams has the structure of params
        and is scaled by dE.

    Raises:
        TypeError, ValueError: whatever the layers and the loss raise on input that does not fit.
    """
    y_hat, cache = net.forward(params, x)
    E, residual = loss.forward(y_hat, y)
    dy_hat = loss.backward(residual, dE)
    if weights is not None:
        E = (weights * loss.each(y_hat, y)).sum() / (len(y) if loss.reduction == "mean" else 1)
        dy_hat = dy_hat * weights.reshape(-1, *(1,) * (dy_hat.ndim - 1))  # ∂(Σ w_i E_i)/∂ŷ_i = w_i ∂E_i/∂ŷ_i
    return E, net.param_grads(params, cache, dy_hat)
