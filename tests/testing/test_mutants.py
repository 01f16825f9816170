import ast
import inspect
import textwrap
import traceback

import numpy as np
import pytest

import tinynet as tn
from tinynet.testing import mutate_backward

TARGETS = {
    tn.Linear: [((4, 3), {"width": 4}), ((3, 3), {"width": 3}), ((4, 3), {"width": 4, "leading": (2, 3)})],
    tn.Sigmoid: [((), {"width": 4})],
    tn.Sequential: [
        ((tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 2)), {"width": 4}),
        ((tn.Sigmoid(), tn.Linear(3, 3), tn.Linear(3, 3)), {"width": 3}),
        ((tn.Sigmoid(), tn.Sigmoid()), {"width": 3}),
    ],
    tn.SquaredError: [
        (("sum",), {"width": 3}),
        (("mean",), {"width": 3}),
        (("mean",), {"width": 3, "leading": (2, 4)}),
    ],
}
every_class = pytest.mark.parametrize("cls", TARGETS, ids=lambda cls: cls.__name__)


def verdict(mutant, cls, cases_of):
    """Say what jax.vjp finds: "killed" or "survived"."""
    for args, where in TARGETS[cls]:
        suspect = mutant.cls(*args)
        for case in cases_of(cls(*args), **where):
            try:
                y, cache = case.forward(suspect)
                np.testing.assert_array_equal(y, case.forward(case.right)[0])
                if case.wrong(case.backward(suspect, cache)):
                    return "killed"
                if isinstance(suspect, tn.Loss) and not np.array_equal(
                    suspect.backward(cache), suspect.backward(cache, 1)
                ):
                    return "killed"
            except AssertionError:
                raise
            except Exception:  # whatever a mutant raises shows that it is wrong
                return "killed"
    return "survived"


def test_derivatives_that_forward_computes_for_the_cache_are_mutated_too(cases_of):
    mutants = [m for m in mutate_backward(tn.Sigmoid, forward=True) if m.method == "forward"]
    verdicts = {m.description.split(" ", 1)[1]: verdict(m, tn.Sigmoid, cases_of) for m in mutants}
    assert verdicts["e /= d → e *= d"] == "killed"
    assert verdicts["e /= d → (deleted)"] == "killed"
    assert verdicts["a /= d → a *= d"] == "survived"  # the output alone, which stays as it is


@every_class
def test_mutants_differ_in_source_from_the_original_and_from_each_other(cls):
    mutants = mutate_backward(cls, forward=True)
    sources = [(m.method, ast.dump(ast.parse(textwrap.dedent(inspect.getsource(m.function))))) for m in mutants]
    originals = [
        (name, ast.dump(ast.parse(textwrap.dedent(inspect.getsource(f)))))
        for name, f in vars(cls).items()
        if inspect.isfunction(f) and f.__module__ == cls.__module__ and name in {m.method for m in mutants}
    ]
    assert len(set(sources)) == len(mutants) > 0
    assert not set(sources) & set(originals)


@every_class
def test_a_mutant_takes_the_place_of_the_original(cls):
    for mutant in mutate_backward(cls):
        args = TARGETS[cls][0][0]
        assert repr(mutant.cls(*args)) == repr(cls(*args))
        assert isinstance(mutant.cls(*args), cls)
        assert mutant.method in vars(mutant.cls)
        assert " → " in mutant.description


@every_class
def test_argument_checks_and_their_messages_are_left_alone(cls):
    for mutant in mutate_backward(cls, forward=True):
        source = inspect.getsource(mutant.function)
        original = inspect.getsource(getattr(cls, mutant.method))
        for kept in ("check_same_shape(", "check_features(", "check_floating(", "_check(", "raise "):
            assert source.count(kept) == original.count(kept)


def test_a_traceback_shows_the_mutated_line():
    mutant = next(
        m for m in mutate_backward(tn.Linear) if m.description.endswith("return (dz @ params['W'].T, dparams)")
    )
    layer = mutant.cls(4, 3)
    params = layer.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match="mismatch") as error:
        layer.backward(params, np.ones((2, 4), np.float32), np.ones((2, 3), np.float32))
    assert "return (dz @ params['W'].T, dparams)" in "".join(traceback.format_exception(error.value))


def test_the_functions_that_a_backward_pass_calls_are_mutated_and_the_originals_stay():
    layer, x = tn.AvgPool2d(2), np.random.default_rng(0).standard_normal((2, 1, 5, 4))
    y, cache = layer.forward({}, x)
    right = layer.backward({}, cache, y)[0]
    mutants = {m.description.partition(" → ")[2]: m for m in mutate_backward(tn.AvgPool2d)}
    assert {m.method for m in mutants.values()} == {"backward", "fold", "_slices", "reach", "count"}
    mutant = mutants["dx = namespace(dw).ones(shape, dtype=dw.dtype)"].cls(2)
    np.testing.assert_array_equal(mutant.forward({}, x)[0], y)
    np.testing.assert_array_equal(mutant.backward({}, cache, y)[0], right + 1)
    moved = mutants["return slice(start, start + (number - 1) * stride - 1, stride)"].cls(
        2
    )  # fold calls _slices calls reach
    with pytest.raises(ValueError, match="broadcast"):
        moved.backward({}, cache, y)
    np.testing.assert_array_equal(layer.backward({}, cache, y)[0], right)


class Shifted(tn.Linear):
    """A layer whose backward pass calls `super()` and writes into an array of its own."""

    def backward(self, params, a, dz):
        dx = np.zeros(a.shape, a.dtype)
        np.add.at(dx, slice(None), super().backward(params, a, dz)[0])
        return dx, self.param_grads(params, a, dz)


def test_super_and_writes_into_own_arrays_are_understood():
    mutants = mutate_backward(Shifted)
    layer = Shifted(4, 3)
    params = layer.init(np.random.default_rng(0))
    a, dz = np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)
    deleted = next(m for m in mutants if m.description.endswith("(deleted)"))
    assert not deleted.cls(4, 3).backward(params, a, dz)[0].any()
    doubled = next(m for m in mutants if m.description.endswith("np.ones(a.shape, a.dtype)"))
    right = layer.backward(params, a, dz)[0]
    np.testing.assert_allclose(doubled.cls(4, 3).backward(params, a, dz)[0], right + 1, rtol=1e-6)


def test_a_class_that_is_no_layer_or_has_no_source_is_refused():
    with pytest.raises(TypeError, match="expected a subclass"):
        mutate_backward(dict)
    scope = {"tn": tn}
    exec("class Typed(tn.Sigmoid):\n    def backward(self, params, cache, dy):\n        return dy, {}\n", scope)
    with pytest.raises(OSError, match="has no source"):
        mutate_backward(scope["Typed"])
