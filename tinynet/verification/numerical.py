"""Derivatives of a forward pass that can only be called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet.verification.adapters.subject import Args, Array, Exact, TargetError
from tinynet.verification.tolerance import largest

_STEPS = (0.1, 1e-3, 1e-5)
"""First steps of the differences, relative to what is moved; each further one is half as long.

The smaller ones are for functions that turn too often within the first, as sin does far out.
"""
_ROWS = 10
_DIRECTIONS = 3
_TINY = 1e-20
"""The complex step: far below rounding, since nothing is subtracted."""
ENTRIES = 5_000
"""Of an array with more, each entry is not moved alone."""
_VAGUE, _SHARP = 1e-3, 1e-6
"""Errors, relative to what moves y, above which a gradient is not known, and below which it is known well."""

Column = npt.NDArray[np.float64]
"""∂y/∂xᵢ of one entry xᵢ: all outputs, flattened, one behind another."""


class NumericalOracle:
    """Derivatives of a function of which nothing is known but its values.

    The complex step, Im f(x + ih) / h with h = 10⁻²⁰, is exact to rounding where f is real-analytic and takes complex
    numbers. Central differences (f(x + h) − f(x − h)) / 2h at h, h/2, h/4, …, extrapolated to h = 0 (Richardson;
    Ridders 1982), give about ten digits, and their table tells how many. The complex step is taken where differences in
    random directions confirm it, else the differences of every entry.

    Attributes:
        text, resolution, caveat: as `Oracle` has them; they speak of all calls so far.
    """

    def __init__(
        self,
        call: Callable[[Args], tuple[Array, ...]],
        wrt: tuple[str, ...],
        *,
        why: str = "",
        relative: float = 0.0,
    ) -> None:
        """Take the function.

        Args:
            call: from the arrays by name to the leaves of y; for the complex step one array is complex.
            wrt: the names of the arrays that are moved.
            why: there is no exact oracle, for the text.
            relative: error of a complex step through it, as where it iterates until a tolerance is met.
        """
        self.call, self.wrt, self.why, self.relative = call, wrt, why, relative
        self.text, self.resolution, self.caveat = "", relative, ""
        self._methods: dict[str, str] = {}
        self._last: tuple[Any, dict[str, tuple[Array, Array]]] = (None, {})

    def __call__(self, args: Args, dy: tuple[Array, ...]) -> Exact:
        """Return the outputs, the gradients of Σ dy ⊗ y, and how far off these may be.

        Raises:
            TargetError: an array has too many entries to move each.
        """
        y = tuple(np.asarray(leaf, np.float64) for leaf in self._outputs(args))
        flat = _flat(tuple(np.asarray(d, np.float64) for d in dy))
        grads, uncertainty = {}, {}
        for name, (jacobian, error) in self._jacobians(args).items():
            with np.errstate(all="ignore"):
                grads[name] = (jacobian @ flat).reshape(args[name].shape)
                uncertainty[name] = float(np.max(error @ np.abs(flat), initial=0.0))
        if all(np.isfinite(leaf).all() for leaf in y):
            self._judge(args, grads, uncertainty)
        return Exact(y, grads, uncertainty)

    def _judge(self, args: Args, grads: Mapping[str, Array], uncertainty: Mapping[str, float]) -> None:
        """Say how well the gradients are known, as far as the arrays are that matter for y.

        The first call has the arrays that were given: what does not converge there can never be judged.
        """
        how = " and ".join(dict.fromkeys(self._methods.values()))
        lengths = {name: _scale(args[name]) for name in grads}
        moves = {name: largest(g) * lengths[name] for name, g in grads.items()}
        doubts = {name: u * lengths[name] for name, u in uncertainty.items()}
        vague = [n for n, doubt in doubts.items() if not doubt <= _VAGUE * max(moves.values(), default=0.0)]
        if not self.text and vague and any(doubts.values()):
            self.caveat = (
                f"differences of {vague[0]} do not converge: they cannot tell a right gradient from a wrong one"
            )
        known = [doubt / moves[n] for n, doubt in doubts.items() if doubt <= _SHARP * moves[n] > 0]
        self.resolution = max([self.resolution, *known])
        self.text = f"{how} of your forward pass" + (f" ({self.why})" if self.why else "")

    def _jacobians(self, args: Args) -> dict[str, tuple[Array, Array]]:
        key = tuple((name, a.dtype.str, a.shape, a.tobytes()) for name, a in args.items())
        if self._last[0] != key:
            self._last = (key, {name: self._jacobian(args, name) for name in self.wrt})
        return self._last[1]

    def _jacobian(self, args: Args, name: str) -> tuple[Array, Array]:
        """Return ∂y/∂x of one array, a row per entry of x, and a bound on the error of each."""
        size = args[name].size
        if size == 0:
            none = np.zeros((0, _flat(self._outputs(args)).size))
            return none, none
        if size > ENTRIES:
            raise TargetError(f"{name} has {size} entries, too many to move one by one; give inputs= of fewer")
        columns = self._complex_columns(args, name)
        if columns is not None and self._confirmed(args, name, columns):
            self._methods[name] = "complex step, confirmed by differences"
            return columns, self.relative * np.abs(columns)
        self._methods[name] = "extrapolated differences"
        lengths = np.maximum(np.abs(args[name]), 0.1 * _scale(args[name])).ravel()
        units = (np.eye(1, size, i).reshape(args[name].shape) for i in range(size))
        pairs = [self._differences(args, name, length * unit) for length, unit in zip(lengths, units, strict=True)]
        slopes, errors = (np.array(part).reshape(size, -1) / lengths[:, None] for part in zip(*pairs, strict=True))
        return slopes, errors

    def _complex_columns(self, args: Args, name: str) -> Array | None:
        """Return the complex step's; a loop of JAX's, whose carry keeps its dtype, may need every array complex."""
        for given in (args, {**args, **{n: args[n].astype(np.complex128) for n in self.wrt}}):
            with suppress(Exception):
                return np.array([self._complex_column(given, name, index) for index in np.ndindex(args[name].shape)])
        return None

    def _complex_column(self, args: Args, name: str, index: tuple[int, ...]) -> Column:
        moved = args[name].astype(np.complex128)
        moved[index] += 1j * _TINY
        leaves = self._outputs({**args, name: moved})
        if not any(leaf.dtype.kind == "c" for leaf in leaves):
            raise TypeError("it takes the real part")
        return _flat(tuple(leaf.imag for leaf in leaves)) / _TINY

    def _confirmed(self, args: Args, name: str, columns: Array) -> bool:
        """Return whether differences agree; at smaller steps, where rounding could hide anything, to 1e-7."""
        rng = np.random.default_rng(0)
        for _ in range(1 if name in self._methods else _DIRECTIONS):
            direction = rng.standard_normal(args[name].shape) * _scale(args[name])
            exact = direction.ravel() @ columns
            slack = max(1e-7, self.relative) * np.abs(direction.ravel()) @ np.abs(columns)
            for step in _STEPS:
                slope, error = self._differences(args, name, direction, step)
                if np.all(np.abs(exact - slope) <= slack + (error if step == _STEPS[0] else 0.0)):
                    break
            else:
                return False
        return True

    def _differences(self, args: Args, name: str, direction: Array, step: float = _STEPS[0]) -> tuple[Column, Column]:
        """Return the slope of every output along `direction`, and a bound on its error.

        An array of one sign keeps it: beyond 0 a logarithm has no value, and Newton's method for a root does not end.
        """
        a = args[name]
        if np.all(a > 0) or np.all(a < 0):
            step = min(step, 0.5 / max(largest(direction / a), _TINY))
        return ridders(lambda h: self._outputs({**args, name: a + h * direction}), step)

    def _outputs(self, args: Args) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return tuple(np.asarray(leaf) for leaf in self.call({name: a.copy() for name, a in args.items()}))


def ridders(f: Callable[[float], tuple[Array, ...]], step: float) -> tuple[Column, Column]:
    """Return f′(0), all outputs flattened, and a bound on the error of each.

    T₀(h) = (f(h) − f(−h)) / 2h = f′(0) + c₂h² + c₄h⁴ + …, and Tₖ(h) = Tₖ₋₁(h) + (Tₖ₋₁(h) − Tₖ₋₁(2h)) / (4ᵏ − 1) lacks
    the first k powers. Of the whole table each output takes the entry that differs least from its two neighbours, and
    ten times that difference, with the rounding of f at that step, as its error.
    """
    best, doubt = np.zeros(0), np.full(0, np.inf)
    above: list[Column] = []
    for row in range(_ROWS):
        h = step * 2.0**-row
        ahead, behind = f(h), f(-h)
        unit = np.concatenate([np.full(leaf.size, _unit(leaf)) for leaf in ahead]) if ahead else 2.0**-52
        left, right = _flat(behind), _flat(ahead)
        with np.errstate(all="ignore"):
            here = [(right - left) / (2 * h)]
            noise = 8 * unit * np.maximum(np.abs(left), np.abs(right)) / h
            if row == 0:
                best, doubt = here[0], np.full(here[0].shape, np.inf)
            for k in range(1, row + 1):
                here.append(here[-1] + (here[-1] - above[k - 1]) / (4.0**k - 1))
                error = 10 * np.maximum(np.abs(here[k] - here[k - 1]), np.abs(here[k] - above[k - 1])) + noise
                better = error < doubt
                best, doubt = np.where(better, here[k], best), np.where(better, error, doubt)
            if row >= 3 and np.all(doubt <= 1e-11 * np.max(np.abs(best), initial=0.0)):
                break
        above = here
    return best, doubt


def _unit(leaf: Array) -> float:
    """Return the spacing of the numbers that an output was computed in: float32's if it holds no others."""
    if leaf.dtype.kind != "f":
        return 2.0**-52
    single = (
        leaf.dtype == np.float64 and np.array_equal(leaf, leaf.astype(np.float32)) and np.any(leaf != np.rint(leaf))
    )
    return float(np.finfo(np.float32 if single else leaf.dtype).eps)


def _scale(array: Array) -> float:
    """Return the root mean square of an array; 1 for zeros."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if np.any(array) else 1.0


def _flat(leaves: tuple[Array, ...]) -> Column:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves]) if leaves else np.zeros(0)
