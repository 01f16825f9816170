"""PyTorch targets as subjects."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
import torch

from tinynet.verification.adapters.arguments import Arguments, Slot, floats, mapped, read_arguments, signature_of
from tinynet.verification.adapters.parts import fresh
from tinynet.verification.adapters.subject import Args, Array, Subject, TargetError, short
from tinynet.verification.adapters.torch.oracle import TorchOracle, choose_oracle
from tinynet.verification.adapters.torch.plain import attached
from tinynet.verification.adapters.torch.sessions import Call, TorchSession, is_differentiable, tensors_of, to_array
from tinynet.verification.execution import told
from tinynet.verification.tolerance import CHOICE


@dataclass(frozen=True)
class _Form:
    """How a target is called.

    Attributes:
        name: what the report calls it.
        signature: a function with the arguments of the forward pass.
        start: makes a function (positional, keywords, tensors by name) -> y, on a copy of the target, which lacks the
            hooks that change gradients where the argument is true.
        params: the parameters by name.
        frozen: which of them are not trained.
        hooks: functions that change the gradients of parameters, by name.
        by_hand: whether it has derivatives written by hand, as far as can be seen without running it.
        code: what computes y and the gradients.
        function: the Function that this is.
        rule: the Function or operator that this is.
        device: where the parameters are.
    """

    name: str
    signature: Callable[..., Any]
    start: Callable[[bool], Callable[..., Any]]
    params: Mapping[str, Array] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    hooks: Mapping[str, tuple[Callable[[Any], Any], ...]] = field(default_factory=dict)
    by_hand: bool = True
    code: tuple[Callable[..., Any], ...] = ()
    function: Any = None
    rule: Any = None
    device: str | torch.device = "cpu"


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
    bound = getattr(target, "__self__", None)
    if is_function(bound) and getattr(target, "__name__", "") == "apply":
        target = bound
    given = list(tensors_of(inputs))
    if is_function(target):
        form = _function(target)
    elif isinstance(target, torch.nn.Module):
        form = _module(target, inputs, params or {})
    elif isinstance(target, torch.library.CustomOpDef):
        form = _Form(
            target._qualname,
            target._init_fn,
            lambda plain: lambda p, k, tensors: target(*p, **k),
            code=(target._init_fn, target._backward_fn),
            rule=target,
        )
    elif given and callable(target):
        form = _Form(
            short(target), target, lambda plain: lambda p, k, tensors: target(*p, **k), code=(target,), by_hand=False
        )
    else:
        return None
    if params and not isinstance(target, torch.nn.Module):
        raise TargetError(
            f"{form.name}: params= has {', '.join(params)}, and a function has no parameters; use inputs="
        )
    devices = {t.device for t in given} or {torch.device(form.device)}
    if len(devices) > 1:
        raise TargetError(
            f"{form.name}: inputs= holds tensors on {', '.join(sorted(map(str, devices)))}; use one device"
        )
    inputs = as_arrays(inputs)
    if form.function:
        inputs = _positional(form, inputs)
    arguments, arrays = read_arguments(form.signature, inputs, rng, name=form.name, integers=bool(form.params))
    device = devices.pop()
    subject, reading = _subject(form, arguments, {**arrays, **form.params}, device, rng)
    if not form.rule:
        return subject
    notes = _of_second_derivatives(form, arguments, subject, reading, device, rng)
    return replace(subject, notes=(*subject.notes, *notes))


def _subject(
    form: _Form, arguments: Arguments, arrays: dict[str, Array], device: torch.device, rng: np.random.Generator
) -> tuple[Subject, float | None]:
    def start(plain: bool = False) -> Call:
        forward = form.start(plain)

        def call(tensors: Mapping[str, torch.Tensor]) -> Any:
            positional, keywords = arguments.filled(tensors)
            return forward(positional, keywords, tensors)

        return call

    wrt = tuple(n for n in floats(arrays) if n not in form.frozen)
    order = tuple(p.name if isinstance(p, Slot) else "" for p in arguments.positional)

    def session(wrt: tuple[str, ...], cloned: bool) -> TorchSession:
        return TorchSession(start(), wrt, device, cloned, form.hooks, form.function, order)

    example, cloned = _runs(session, arrays, wrt, form.name)
    subject = Subject(
        name=form.name,
        args=arrays,
        wrt=wrt,
        inputs=tuple(n for n in arrays if n not in form.params),
        start=lambda: session(wrt, cloned),
        code=form.code,
        library="torch",
        reference=lambda f, args: _called(f, arguments, args, device),
    )
    choice = choose_oracle(subject.at(example), lambda: start(True), device, rng)
    notes = [*choice.notes, *(f"{n} has requires_grad=False and is a constant" for n in sorted(form.frozen))]
    if not (form.by_hand or choice.functions):
        notes.append("nothing in it was derived by hand: PyTorch's autograd is compared with itself")
    whole = replace(subject, make_oracle=lambda s: choice.oracle(s.wrt), notes=tuple(notes))

    def alone(_: np.random.Generator) -> list[tuple[str, Subject]]:
        if not form.function or len(wrt) < 2:
            return []
        starts = {n: functools.partial(session, (n,), cloned) for n in wrt}
        return [(f"only {n} needs a gradient", replace(whole, wrt=(n,), start=s)) for n, s in starts.items()]

    def parts() -> list[tuple[str, Subject]]:
        inner = {f: a for f, a in (choice.functions or {}).items() if f is not form.rule}
        given = {f: tuple(v.detach() if isinstance(v, torch.Tensor) else v for v in a) for f, a in inner.items()}
        found = ((adapt_torch(f, given[f], None, rng), a) for f, a in inner.items())
        return [(s.name, _where_needed(s, a)) for s, a in found if s is not None]

    return replace(whole, variants=alone, parts=parts), choice.reading


def _called(function: Callable[..., Any], arguments: Arguments, args: Args, device: torch.device) -> Any:
    """Return what a function gives for the arguments as tensors, as arrays."""
    out = arguments.call(function, {n: torch.tensor(a, device=device) for n, a in args.items()})
    return jax.tree.map(lambda t: to_array(t) if isinstance(t, torch.Tensor) else t, out)


def _where_needed(subject: Subject, args: tuple[Any, ...]) -> Subject:
    """Return a Function inside a target, judged for the arguments that its target wants a gradient of."""
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if len(tensors) != len(subject.inputs):
        return subject
    needed = {n for n, t in zip(subject.inputs, tensors, strict=True) if t.requires_grad}
    return subject.judged_for(needed)


def _of_second_derivatives(
    form: _Form,
    arguments: Arguments,
    subject: Subject,
    reading: float | None,
    device: torch.device,
    rng: np.random.Generator,
) -> list[str]:
    """Return what is to be said of a backward pass under `create_graph=True`: nothing where it is right at one draw."""
    uncompared = "second derivatives (create_graph=True) were not compared"
    none = [f"{uncompared}: its backward pass has none"]
    if reading is None:
        return none
    try:
        outputs = jax.tree.leaves(subject.start().forward(dict(subject.args))[0])
    except RuntimeError:  # it takes float32 alone
        return none
    names = ["dy"] if len(outputs) == 1 else [f"dy.{i}" for i in range(len(outputs))]
    dy = {n: rng.standard_normal(y.shape) for n, y in zip(names, outputs, strict=True)}
    args, wrt = {**subject.args, **dy}, (*subject.wrt, *dy)

    def start(plain: bool) -> Call:
        forward = form.start(plain)

        def gradients(tensors: Mapping[str, torch.Tensor]) -> Any:
            positional, keywords = arguments.filled({n: t.clone() for n, t in tensors.items()})
            outs = [t for t in tensors_of(forward(positional, keywords, tensors)) if is_differentiable(t)]
            asked, given = [tensors[n] for n in subject.wrt], [tensors[n] for n in dy]
            grads = torch.autograd.grad(outs, asked, given, create_graph=True, allow_unused=True)
            if any(_refuses(g) for g in grads):
                raise RuntimeError("marked once_differentiable")
            every = [t for t in tensors.values() if t.requires_grad]
            whole = (torch.zeros_like(t) if g is None else g for t, g in zip(asked, grads, strict=True))
            return {n: attached(g, every) for n, g in zip(subject.wrt, whole, strict=True)}

        return gradients

    session = TorchSession(start(False), wrt, device)
    try:
        y, context = session.forward({n: a.copy() for n, a in args.items()})
        session.backward(context, y)
    except RuntimeError:
        return none
    leaves, structure = jax.tree.flatten(y)
    second = [rng.standard_normal(leaf.shape) for leaf in leaves]
    try:
        exact = TorchOracle(lambda: start(True), wrt, device, reading)(args, tuple(second))
        got = session.backward(context, jax.tree.unflatten(structure, second))
    except Exception as error:
        return [f"{uncompared}: {told(error)}"]
    if not all(map(_near, leaves, exact.y)):
        return []  # the first ones are wrong
    wrong = ", ".join(n for n, g in exact.grads.items() if not _near(np.zeros(()) if got[n] is None else got[n], g))
    if not wrong:
        return []
    return [
        f"second derivatives (create_graph=True) are wrong by {wrong}, and are not judged; mark backward with "
        "once_differentiable, or compute it from saved inputs and outputs alone"
    ]


def _near(got: Array, exact: Array) -> bool:
    return np.allclose(got, exact, rtol=CHOICE, atol=CHOICE * float(np.max(np.abs(exact), initial=1.0)))


def _refuses(gradient: torch.Tensor | None) -> bool:
    """Return whether a gradient says that it must not be differentiated, as `once_differentiable` has it."""
    nodes, seen = [gradient.grad_fn] if gradient is not None else [], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("Error"):
            return True
        seen.add(node)
        nodes += [n for n, _ in node.next_functions]
    return False


def _runs(
    session: Callable[[tuple[str, ...], bool], TorchSession], arrays: Args, wrt: tuple[str, ...], name: str
) -> tuple[Args, bool]:
    """Return the arrays in a precision at which the target runs, and whether its inputs have to be copies.

    Raises:
        TargetError: it runs at none.
    """
    errors = []
    for dtype in (np.float64, np.float32):
        args = {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in arrays.items()}
        for cloned in (False, True):
            try:
                session(wrt, cloned).forward({n: a.copy() for n, a in args.items()})
            except Exception as error:
                errors.append(error)
                if "leaf Variable" not in str(error):
                    break
            else:
                return args, cloned
    shapes = ", ".join(f"{n} {a.shape}" for n, a in arrays.items())
    raise TargetError(
        f"{name}: the forward pass raises {type(errors[0]).__name__}: {errors[0]} at {shapes}; see inputs="
    )


def _function(target: Any) -> _Form:
    split = target.setup_context is not torch.autograd.Function.setup_context
    code = (target.forward, target.backward, target.vjp, *((target.setup_context,) if split else ()))
    return _Form(
        target.__qualname__.replace("<locals>.", ""),
        target.forward if split else functools.partial(target.forward, None),
        lambda plain: lambda positional, keywords, tensors: target.apply(*positional),
        code=tuple(c for c in code if not (c.__module__ or "").startswith("torch.")),
        function=target,
        rule=target,
    )


def _module(target: torch.nn.Module, inputs: Any, given: Mapping[str, Any]) -> _Form:
    name = type(target).__qualname__.replace("<locals>.", "")
    module: torch.nn.Module = fresh(target)
    if any(isinstance(p, torch.nn.parameter.UninitializedTensorMixin) for p in module.state_dict().values()):
        generator = np.random.default_rng(0)
        arguments, arrays = read_arguments(module.forward, as_arrays(inputs), generator, name=name, integers=True)
        types = {n: torch.get_default_dtype() if a.dtype.kind == "f" else None for n, a in arrays.items()}
        positional, keywords = arguments.filled({n: torch.tensor(a, dtype=types[n]) for n, a in arrays.items()})
        with torch.no_grad():
            module(*positional, **keywords)
    own = dict(module.named_parameters())
    state = {**own, **dict(module.named_buffers())}
    for key, value in given.items():
        if key not in state or np.shape(value) != tuple(state[key].shape):
            at = f"{tuple(state[key].shape)}" if key in state else f"one of {', '.join(state) or 'nothing'}"
            raise TargetError(f"{name}: params= has {key} of shape {np.shape(value)}; expected {at}")
        with torch.no_grad():
            state[key].copy_(torch.as_tensor(np.asarray(as_arrays(value))))
    hooks = {
        f"params.{n}": tuple(p._backward_hooks.values()) for n, p in target.named_parameters() if p._backward_hooks
    }

    def start(plain: bool) -> Callable[..., Any]:
        copy = fresh(module)
        for part in copy.modules() if plain else ():
            part._backward_hooks, part._backward_pre_hooks = type(part._backward_hooks)(), type(part._backward_hooks)()

        def call(positional: Any, keywords: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
            params = {n: tensors[f"params.{n}"].contiguous() for n in own}  # as Parameters are
            copy.to(
                torch.float64 if plain else next((t.dtype for t in tensors.values() if t.is_floating_point()), None)
            )
            return torch.func.functional_call(copy, params, positional, keywords)

        return call

    return _Form(
        name,
        module.forward,
        start,
        params={f"params.{n}": to_array(p).astype(np.float64) for n, p in own.items()},
        frozen=frozenset(f"params.{n}" for n, p in own.items() if not p.requires_grad),
        hooks=hooks,
        by_hand=bool(hooks) or any(m._backward_hooks or m._backward_pre_hooks for m in module.modules()),
        code=(type(module).forward,),
        device=next((p.device for p in state.values()), "cpu"),
    )


def _positional(form: _Form, inputs: Any) -> Any:
    """Return arguments that are given by name in their order, since `apply` takes no names."""
    if not isinstance(inputs, Mapping) or not set(inputs) <= {p.name for p in signature_of(form.signature)}:
        return inputs
    try:
        bound = inspect.signature(form.signature).bind(**inputs)
    except TypeError as error:
        raise TargetError(f"{form.name}: inputs= has {', '.join(inputs)}: {error}") from None
    bound.apply_defaults()
    return bound.args


def is_function(target: Any) -> bool:
    """Return whether a target is a subclass of `torch.autograd.Function`."""
    return isinstance(target, type) and issubclass(target, torch.autograd.Function)


def as_arrays(tree: Any) -> Any:
    """Return `inputs` with an array in place of each tensor."""
    return mapped(lambda leaf: to_array(leaf) if isinstance(leaf, torch.Tensor) else leaf, tree)
