"""Back-propagation by hand: the loss and its gradient, forward and then backward."""

from __future__ import annotations

from tinynet.arrays import Array, Params
from tinynet.layers import Layer
from tinynet.losses import Loss

__all__ = ["value_and_grads"]


def value_and_grads(net: Layer, loss: Loss, params: Params, x: Array, y: Array) -> tuple[Array, Params]:
    """Return (E, dparams) of E = loss(net(params, x), y), every derivative by hand.

    Shapes:
        x (m, …), y of the shape of the network's output; E a scalar; dparams has the structure of params.

    Raises:
        TypeError, ValueError: whatever the layers and the loss raise on input that does not fit.
    """
    y_hat, cache = net.forward(params, x)
    E, residual = loss.forward(y_hat, y)
    return E, net.param_grads(params, cache, loss.backward(residual))
