"""The derivation as a page: its equations, what is misprinted, where each is code, and its numbers in an example."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinynet import scalar
from tinynet.equations import EQUATIONS, Equation
from tinynet.inspection import trace
from tinynet.pages import fill
from tinynet.pages.examples import mazur
from tinynet.pages.mathml import mathml, with_formulas

SECTIONS = (
    ((1, 2), "§1 The sigmoid", "§1 神经单元的 sigmoid 函数"),
    ((3, 4), "§2.1 The loss", "§2.1 损失函数"),
    ((5, 6, 7), "§2.2 The weights W of the output layer", "§2.2 误差从输出层反传到隐层：∇W"),
    ((8, 9, 10, 11), "§2.2 The weights V of the hidden layer", "§2.2 误差从隐层反传到输入层：∇V"),
    ((12, 13, 14, 15, 16), "§2.3 The biases", "§2.3 bias 的梯度"),
    ((17,), "§4 The mini-batch", "§4 随机梯度下降：mini-batch"),
    ((18, 19), "§5.1 A layer", "§5.1 一层的向量化表示"),
    ((20, 21, 22), "§5.2 The error δ of a layer", "§5.2 层的误差 δ"),
    ((23, 24, 25, 26), "§5.2 The gradients of a layer", "§5.2 层的梯度"),
)

_OUTPUTS = "({ŷ1} (1 − {ŷ1}) ({ŷ1} − {y1}) · {W11} + {ŷ2} (1 − {ŷ2}) ({ŷ2} − {y2}) · {W21})"

EXAMPLE = {
    1: ("h_1", "1 / (1 + e^−{α1})"),
    2: ("f′(α_1)", "{h1} (1 − {h1})"),
    3: ("ℓ(ŷ, y)", "({ŷ1} − {y1})² + ({ŷ2} − {y2})²"),
    4: ("E", "½ (({ŷ1} − {y1})² + ({ŷ2} − {y2})²)"),
    5: ("∇W_11", ""),
    6: ("∇W_11", "{r1} · {s1} · {h1}"),
    7: ("∇W_11", "({ŷ1} − {y1}) · {ŷ1} (1 − {ŷ1}) · {h1}"),
    8: ("∇V_11", ""),
    9: ("∇V_11", "{g1} · {t1} · {x1}"),
    10: ("∇V_11", "({δ1} · {W11} + {δ2} · {W21}) · {h1} (1 − {h1}) · {x1}"),
    11: ("∇V_11", _OUTPUTS + " · {h1} (1 − {h1}) · {x1}"),
    12: ("∇b_1", "{r1} · {s1}"),
    13: ("∇b_1", "({ŷ1} − {y1}) · {ŷ1} (1 − {ŷ1})"),
    14: ("∇c_1", "{g1} · {t1}"),
    15: ("∇c_1", "({δ1} · {W11} + {δ2} · {W21}) · {h1} (1 − {h1})"),
    16: ("∇c_1", _OUTPUTS + " · {h1} (1 − {h1})"),
    17: ("∇W_11", "½ ({first} + {second})"),
    18: ("z_1^1", "{V11} · {x1} + {V12} · {x2} + {c1}"),
    19: ("a_1^1", "1 / (1 + e^−{α1})"),
    20: ("δ_1^1", "{g1} · {t1}"),
    21: ("δ_1^2", "({ŷ1} − {y1}) · {s1}"),
    22: ("δ_1^1", "({W11} · {δ1} + {W21} · {δ2}) · {t1}"),
    23: ("∂J/∂w_11^2", "{δ1} · {h1}"),
    24: ("∂J/∂w_12^2", "{δ1} · {h2}"),
    25: ("∂J/∂b_1^2", "{δ1}"),
    26: ("∂J/∂b_2^2", "{δ2}"),
}
"""Left and right side of each equation for one entry of Mazur's network; r is ŷ − y, s and t are f′(β) and f′(α), g is
∂E/∂h. (17) is of two samples: Mazur's, and the same with its inputs exchanged."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """What an equation gives in the example.

    Attributes:
        left, right: the two sides for one entry, as formulas, the right one with numbers.
        entry: which entry of `by_hand` that is.
        by_hand: the whole array, by the code that implements the equation.
        by_jax: the same by JAX's functions and their derivatives, in float64.
    """

    left: str
    right: str
    entry: tuple[int, ...]
    by_hand: Values
    by_jax: Values

    @property
    def ulp(self) -> float:
        """Return the largest difference in units of 2⁻⁵² of the largest entry."""
        return float(np.max(np.abs(self.by_hand - self.by_jax)) / (2.0**-52 * np.max(np.abs(self.by_jax))))


def checks() -> dict[int, Check]:
    """Return each equation's numbers in the example."""
    hand, exact, numbers = _by_hand(), _by_jax(), {n: _shown(v) for n, v in example_numbers().items()}
    entries = {24: (0, 1), 26: (1,)}
    found = {}
    for n, (left, right) in EXAMPLE.items():
        by_hand, by_jax = np.asarray(hand[n], float), np.asarray(exact[n], float)
        entry = entries.get(n, (0,) * by_hand.ndim)
        found[n] = Check(left, right.format(**numbers), entry, by_hand, by_jax)
    return found


def _two_samples(x: Any, y: Any) -> tuple[Any, Any]:
    return [list(x), list(x)[::-1]], [list(y), list(y)]


def _mazur() -> tuple[scalar.Parameters, list[float], list[float]]:
    _, _, (hidden, _, output, _), x, y = mazur()
    p = scalar.Parameters(*(hidden[k].tolist() for k in "Wb"), *(output[k].tolist() for k in "Wb"))
    return p, x[0].tolist(), y[0].tolist()


def example_numbers() -> dict[str, float]:
    """Return the numbers that stand in the right sides of `EXAMPLE`."""
    p, x, y = _mazur()
    act, at = scalar.forward(p, x), trace(*mazur())
    X, Y = _two_samples(x, y)
    pairs = [scalar.gradients(p, a, b).W[0][0] for a, b in zip(X, Y, strict=True)]
    vectors = {"x": x, "y": y, "α": act.α, "h": act.h, "ŷ": act.y_hat, "c": p.c, "r": at["∂E/∂a2"][0]}
    vectors |= {"s": at["f′(z2)"][0], "t": at["f′(z1)"][0], "g": at["∂E/∂a1"][0], "δ": at["δ2"][0]}
    named = {f"{name}{i + 1}": float(v) for name, vector in vectors.items() for i, v in enumerate(vector)}
    named |= {f"V{i + 1}{j + 1}": p.V[i][j] for i in (0, 1) for j in (0, 1)}
    named |= {f"W{i + 1}{j + 1}": p.W[i][j] for i in (0, 1) for j in (0, 1)}
    return named | {"first": pairs[0], "second": pairs[1]}


def _by_hand() -> dict[int, Any]:
    p, x, y = _mazur()
    act, at, of = scalar.forward(p, x), trace(*mazur()), scalar.gradients(p, x, y)
    mean = scalar.mean_gradients(p, *_two_samples(x, y))
    return {
        1: [scalar.f(z) for z in act.α],
        2: [scalar.f_prime(z) for z in act.α],
        3: scalar.ell(act.y_hat, y),
        4: scalar.error(act.y_hat, y),
        **dict.fromkeys((5, 6, 7), of.W),
        **dict.fromkeys((8, 9, 10, 11), of.V),
        **dict.fromkeys((12, 13), of.b),
        **dict.fromkeys((14, 15, 16), of.c),
        17: mean.W,
        18: at["z1"][0],
        19: at["a1"][0],
        **dict.fromkeys((20, 22), at["δ1"][0]),
        21: at["δ2"][0],
        **dict.fromkeys((23, 24), at["dW2"]),
        **dict.fromkeys((25, 26), at["db2"]),
    }


def _by_jax() -> dict[int, Any]:
    import jax
    import jax.numpy as jnp

    def y_hat(p: Any, x: Any, nudges: Any = (0.0, 0.0)) -> Any:
        h = jax.nn.sigmoid(p.V @ x + p.c + nudges[0])
        return jax.nn.sigmoid(p.W @ h + p.b + nudges[1])

    def E(p: Any, x: Any, y: Any, nudges: Any = (0.0, 0.0)) -> Any:
        return jnp.sum((y_hat(p, x, nudges) - y) ** 2) / 2

    with jax.enable_x64(True):
        lists, *sample = _mazur()
        p: Any = scalar.Parameters._make(map(jnp.array, lists))
        x, y = map(jnp.array, sample)
        X, Y = map(jnp.array, _two_samples(*sample))
        of, zero, α = jax.grad(E)(p, x, y), jnp.zeros(2), p.V @ x + p.c
        mean = jax.grad(lambda p: jnp.mean(jax.vmap(E, (None, 0, 0))(p, X, Y)))(p)
        δ = jax.grad(lambda nudges: E(p, x, y, nudges))((zero, zero))
        h = jax.nn.sigmoid(α)
        values = {1: h, 2: jax.vmap(jax.grad(jax.nn.sigmoid))(α), 3: 2 * E(p, x, y), 4: E(p, x, y), 17: mean.W}
        values |= dict.fromkeys((5, 6, 7, 23, 24), of.W) | dict.fromkeys((8, 9, 10, 11), of.V)
        values |= dict.fromkeys((12, 13, 25, 26), of.b) | dict.fromkeys((14, 15, 16), of.c)
        values |= {18: α, 19: h, 20: δ[0], 21: δ[1], 22: δ[0]}
        return {n: np.asarray(value) for n, value in values.items()}


def _shown(value: float) -> str:
    text = f"{value:.4g}".replace("-", "−")
    return f"({text})" if value < 0 else text


# The page


def equations_page() -> str:
    """Return the page."""
    try:
        found, remark = checks(), ""
    except ImportError as error:
        found, remark = {}, f"Not compared with JAX: {error}."
    by_number = {e.number: e for e in EQUATIONS}
    sections = []
    for numbers, en, zh in SECTIONS:
        rows = "".join(_row(by_number[n], found.get(n)) for n in numbers)
        sections.append(f"<section><h2>{_both(en, zh)}</h2>{rows}</section>")
    return fill("equations.html", sections="\n".join(sections), remark=escape(remark))


def _row(e: Equation, check: Check | None) -> str:
    parts = [f'<div class="formula scroll">{mathml(e.formula)}</div>']
    if e.erratum:
        en, zh = with_formulas(e.erratum), with_formulas(e.erratum_zh)
        printed = "" if e.printed == e.formula else f'<div class="scroll"><s>{mathml(e.printed)}</s></div>'
        parts.append(
            f'<div class="erratum"><b>† {_both("As printed", "原文")}</b>{printed}<p>{_both(en, zh)}</p></div>'
        )
    if check:
        value = check.by_hand[check.entry]
        right = f" = {check.right}" if check.right else ""
        number = f"{value:.6g}".replace("-", "−")
        parts.append(f'<div class="numbers scroll">{mathml(f"{check.left}{right} = {number}")}</div>')
    parts += [_code(code, e.number) for code in e.code]
    if check:
        verdict = "✓" if check.ulp <= 32 else "✗"
        told = _both(f"equals JAX’s to {check.ulp:.2g} ulp", f"与 JAX 相差 {check.ulp:.2g} ulp")
        exact = repr(float(check.by_jax[check.entry]))
        parts.append(f'<p class="check" data-exact="{exact}" data-value="{float(value)!r}">{verdict} {told}</p>')
    names = ", ".join(escape(name.split("::")[1]) for name in e.checks)
    parts.append(f'<p class="dim test">{_both("test", "测试")}: {names}</p>')
    mark = "†" if e.erratum else ""
    return (
        f'<article id="e{e.number}"><div class="number">({e.number}){mark}</div><div>{"".join(parts)}</div></article>'
    )


def _both(en: str, zh: str) -> str:
    return f'<span lang="en">{en}</span><span lang="zh">{zh}</span>'


def _code(code: str, number: int) -> str:
    """Return the line that carries the number, and where it stands."""
    module_name, name = code.split(":")
    found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        found = getattr(found, part)
    lines, first = inspect.getsourcelines(found)
    marked = [i for i, line in enumerate(lines) if f"({number})" in line]
    at = next((i for i in marked if "#" in lines[i].split(f"({number})")[0]), marked[0])
    file = Path(inspect.getfile(found)).relative_to(Path(__file__).parents[2]).as_posix()
    line = lines[at].split("  # ")[0].strip()
    return f'<p class="code"><code>{escape(line)}</code> <span class="dim">{file}:{first + at}</span></p>'
