"""Optimizers around optimizers: each does step for step what its counterpart in Optax does, on both engines."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

import tinynet as tn
from tinynet.trees import leaves, map_leaves

NET = tn.Sequential(tn.Linear(3, 4), tn.Sigmoid(), tn.Linear(4, 2))
RNG = np.random.default_rng(0)
PARAMS = NET.init(RNG, np.float64)
GRADS = [map_leaves(lambda p: RNG.normal(size=p.shape), PARAMS) for _ in range(12)]


def by_optax(optimizer: optax.GradientTransformation) -> list[Any]:
    """The parameters after each update."""
    with jax.enable_x64(True):
        params = jax.tree.map(jax.numpy.asarray, PARAMS)
        state, seen = optimizer.init(params), []
        for grads in GRADS:
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            seen.append(jax.tree.map(np.asarray, params))
    return seen


def by_hand(optimizer: tn.Optimizer) -> tuple[list[Any], Any]:
    """The parameters after each update, and the last state."""
    params, state, seen = PARAMS, optimizer.init(PARAMS), []
    for grads in GRADS:
        params, state = optimizer.update(params, grads, state)
        seen.append(params)
    return seen, state


LABELS = ({"W": "rest", "b": "frozen"}, {}, {"W": "last", "b": "frozen"})
PAIRS = {
    "accumulate": (tn.Accumulate(tn.Adam(0.1), 4), optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation()),
    "accumulate, an odd number": (
        tn.Accumulate(tn.SGD(0.1, 0.9), 5),
        optax.MultiSteps(optax.sgd(0.1, 0.9), 5).gradient_transformation(),
    ),
    "groups": (
        tn.Groups({"*.b": None, "2.*": tn.SGD(0.1, 0.9), "*": tn.AdamW(0.01)}),
        optax.multi_transform(
            {"frozen": optax.set_to_zero(), "last": optax.sgd(0.1, 0.9), "rest": optax.adamw(0.01, weight_decay=0.01)},
            LABELS,
        ),
    ),
    "a group clipped by itself": (
        tn.Groups({"*.b": None, "2.*": tn.ClipByGlobalNorm(tn.SGD(0.1), 1.0), "*": tn.SGD(0.1)}),
        optax.multi_transform(
            {
                "frozen": optax.set_to_zero(),
                "last": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
                "rest": optax.sgd(0.1),
            },
            LABELS,
        ),
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_each_update_is_that_of_optax(case: str) -> None:
    mine, theirs = PAIRS[case]
    rtol = 1e-6 if "accumulate" in case else 1e-12  # Optax divides by the number of gradients in float32
    for got, expected in zip(by_hand(mine)[0], by_optax(theirs), strict=True):
        for p, q in zip(leaves(got), leaves(expected), strict=True):
            np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-15)


def test_every_fourth_gradient_makes_an_update_on_the_mean_of_the_four() -> None:
    adam, params = tn.Adam(0.1), PARAMS
    state, seen = adam.init(PARAMS), by_hand(tn.Accumulate(adam, 4))[0]
    for i in (0, 4, 8):
        mean = map_leaves(lambda *g: sum(g) / 4, *GRADS[i : i + 4])
        for waiting in seen[i : i + 3]:
            assert all(map(np.array_equal, leaves(waiting), leaves(seen[i - 1] if i else PARAMS)))
        params, state = adam.update(params, mean, state)
        for p, q in zip(leaves(seen[i + 3]), leaves(params), strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-10)


def test_frozen_parameters_keep_their_bits() -> None:
    for params in by_hand(tn.Groups({"0.*": None, "*": tn.SGD(0.1)}))[0]:
        for name in "Wb":
            np.testing.assert_array_equal(params[0][name], PARAMS[0][name])
            assert (params[2][name] != PARAMS[2][name]).all()


def test_averaged_weights_are_the_incremental_update_of_optax() -> None:
    seen, state = by_hand(tn.AverageWeights(tn.Adam(0.1), 0.9))
    average = PARAMS
    with jax.enable_x64(True):
        for params in seen:
            average = optax.incremental_update(params, average, 1 - 0.9)
    for p, q in zip(leaves(state["average"]), leaves(average), strict=True):
        np.testing.assert_allclose(p, np.asarray(q), rtol=1e-12)
    for p, q in zip(leaves(seen[-1]), leaves(by_hand(tn.Adam(0.1))[0][-1]), strict=True):
        np.testing.assert_array_equal(p, q)


def test_reduce_on_plateau_is_that_of_optax() -> None:
    """Optax is shown the value in the update that it scales; `fit` shows it between two."""
    values = [3.0, 2.0, 2.0, 1.9999, 2.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
    theirs = optax.chain(optax.sgd(0.1, 0.9), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))
    mine = tn.ReduceOnPlateau(tn.SGD(0.1, 0.9), "loss", factor=0.5, patience=2)
    params, state = PARAMS, mine.init(PARAMS)
    scales = []
    with jax.enable_x64(True):
        q = jax.tree.map(jax.numpy.asarray, PARAMS)
        optax_state = theirs.init(q)
        for grads, value in zip(GRADS, values, strict=True):
            state = mine.observe(state, {"loss": value})
            params, state = mine.update(params, grads, state)
            updates, optax_state = theirs.update(grads, optax_state, q, value=value)
            q = optax.apply_updates(q, updates)
            scales.append(mine.learning_rate(state))
            for got, expected in zip(leaves(params), jax.tree.leaves(q), strict=True):
                np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(scales, [0.1] * 3 + [0.05] * 4 + [0.025] * 2 + [0.0125] * 2 + [0.0125], rtol=1e-12)


WRAPPED = {
    "accumulate": tn.Accumulate(tn.Adam(0.05), 3),
    "average": tn.AverageWeights(tn.SGD(0.2, 0.9), 0.9),
    "plateau": tn.ReduceOnPlateau(tn.Adam(0.2), factor=0.5, patience=1),
    "groups": tn.Groups({"*.b": None, "2.*": tn.SGD(0.1, 0.9), "*": tn.AdamW(tn.ExponentialDecay(0.01, 0.5, 4))}),
    "all": tn.Accumulate(tn.Groups({"0.*": None, "*": tn.ReduceOnPlateau(tn.SGD(0.3), patience=1)}), 2),
}


class Cut(Exception):
    pass


@pytest.mark.parametrize("case", WRAPPED)
def test_both_engines_agree_and_a_run_that_was_cut_off_ends_with_the_same_bits(case: str, tmp_path: Any) -> None:
    x, y = RNG.normal(size=(22, 3)), RNG.normal(size=(22, 2))
    options: dict[str, Any] = {
        "optimizer": WRAPPED[case],
        "epochs": 5,
        "batch_size": 5,
        "validation": (x[:6] + 1, y[:6]),
    }

    def cut(step: Any) -> None:
        if (step.epoch, step.batch) == (2, 2):
            raise Cut

    results = []
    for engine in ("numpy", "jax"):
        whole = tn.fit(NET, tn.SquaredError("mean"), x, y, engine=engine, step_callbacks=[lambda s: None], **options)
        file = {"checkpoint": tmp_path / engine, "every": 1, "engine": engine, **options}
        with pytest.raises(Cut):
            tn.fit(NET, tn.SquaredError("mean"), x, y, step_callbacks=[cut], **file)
        rest = tn.fit(NET, tn.SquaredError("mean"), x, y, step_callbacks=[lambda s: None], **file)
        for tree in ("params", "state"):
            got, expected = (r.params if tree == "params" else r.state.optimizer for r in (rest, whole))
            for p, q in zip(leaves(got), leaves(expected), strict=True):
                np.testing.assert_array_equal(p, q)
        results.append(whole)
    for p, q in zip(leaves(results[0].params), leaves(results[1].params), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tn.Groups({"*": 3}), r"Groups: groups\['\*'\] is int; expected an instance of tinynet.Optimizer"),
        (lambda: tn.Groups(0.1), "Groups: groups is float; expected a dict from patterns to optimizers"),
        (lambda: tn.Groups([tn.SGD(1.0)]), "Groups: groups is list; expected a dict from patterns to optimizers"),
        (lambda: tn.Groups({"0.*": None}).init(PARAMS), "the parameter '2.W' matches none of .*; add a pattern"),
        (
            lambda: tn.Groups({"*": tn.SGD(1.0), "9.*": None}).init(PARAMS),
            "no parameter matches '9.\\*'; expected one of",
        ),
        (lambda: tn.Accumulate(tn.SGD(1.0), 0), "every is 0; expected at least 1"),
        (lambda: tn.AverageWeights(tn.SGD(1.0), 1.0), "decay is 1.0; expected 0 <= decay < 1"),
        (lambda: tn.ReduceOnPlateau(tn.SGD(1.0), factor=1.0), "factor is 1.0"),
        (
            lambda: tn.ReduceOnPlateau(tn.SGD(1.0)).observe({}, {"loss": 1.0}),
            "'validation_loss', which is not measured",
        ),
    ],
)
def test_what_does_not_fit_is_named(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
