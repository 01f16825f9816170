"""PyTorch targets: `torch.autograd.Function`s, modules, custom operators, and functions that take tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinynet.verification.adapters.subject import Subject


def adapt_torch(target: Any, inputs: Any, params: Mapping[str, Any] | None, rng: np.random.Generator) -> Subject | None:
    """Return a PyTorch target as a subject; None where it is nothing of PyTorch's.

    Args:
        target: a `torch.autograd.Function` or its `apply`, an `nn.Module`, an operator of `torch.library.custom_op`, or
            a function, if `inputs` holds a tensor.
        inputs: for its forward pass, arrays, shapes, tensors (which choose the device) and constants.
        params: values for parameters and buffers of a module, by their names in its `state_dict`.
        rng: for what is drawn.

    Raises:
        TargetError: the inputs or params do not fit, or the forward pass does not run at them.
    """
    if "torch" not in sys.modules:
        return None
    from tinynet.verification.adapters.torch.targets import adapt

    return adapt(target, inputs, params, rng)


def adapt_double_backward(
    target: Any, inputs: Any, params: Mapping[str, Any] | None, rng: np.random.Generator
) -> Subject | None:
    """Return the backward pass of a PyTorch target as a subject itself, a function of its arguments and of dy.

    None where it offers no derivative of its own: it is marked `once_differentiable`, or raises. The arguments are
    those of `adapt_torch`.
    """
    if "torch" not in sys.modules:
        return None
    from tinynet.verification.adapters.torch.targets import adapt

    return adapt(target, inputs, params, rng, twice=True)
