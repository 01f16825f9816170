"""`gradcheck`: called like `torch.autograd.gradcheck`, and judged by `verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinynet.verification.report import GradientError
from tinynet.verification.verify import verify


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    fast_mode: bool = False,
    seed: int = 0,
) -> bool:
    """Verify the derivatives of a function of tensors: in place of `torch.autograd.gradcheck`.

    Args:
        func: a function of tensors that returns a tensor or several, such as `apply` of a torch.autograd.Function.
        inputs: a tensor, or one for each argument; those that require a gradient are judged.
        eps, atol, rtol, fast_mode: accepted, and without effect: the tolerance is that of `verify`.
        raise_exception: False to return False where PyTorch's would raise.
        seed: of every random number.

    Returns:
        True where everything is right; False otherwise, if `raise_exception` is False.

    Raises:
        GradientError: a gradient is wrong or could not be verified; its `report` says which and why.
        ValueError: no input requires a gradient.
    """
    del eps, atol, rtol, fast_mode
    given: Sequence[Any] = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    judged = [i for i, value in enumerate(given) if getattr(value, "requires_grad", False)]
    if not judged:
        raise ValueError("gradcheck: no tensor of inputs requires a gradient; set requires_grad=True on those to judge")

    def of_judged(*tensors: Any) -> Any:
        args = [_in_precision_of(tensors[0], value) for value in given]
        for i, tensor in zip(judged, tensors, strict=True):
            args[i] = tensor
        return func(*args)

    double = all("float64" in str(given[i].dtype) for i in judged)
    report = verify(
        of_judged, inputs=tuple(given[i] for i in judged), dtype="float64" if double else "float32", seed=seed
    )
    if not report.ok and raise_exception:
        raise GradientError(report)
    return report.ok


def _in_precision_of(tensor: Any, value: Any) -> Any:
    floating = getattr(value, "is_floating_point", lambda: False)()
    return value.detach().to(tensor.dtype) if floating else value
