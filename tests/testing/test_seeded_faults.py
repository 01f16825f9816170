import copy
import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

import tinynet as tn
from tinynet.faults import FAULTS
from tinynet.testing import seeded_faults
from tinynet.trees import leaves

TARGETS = [
    (tn.Linear(4, 3), 4),
    (tn.Linear(3, 3), 3),
    (tn.Sigmoid(), 4),
    (tn.SquaredError(), 3),
    (tn.SquaredError(reduction="mean"), 3),
    (tn.Sequential(tn.Linear(4, 3), tn.Sigmoid(), tn.Linear(3, 3), tn.Sigmoid()), 4),
]
BEHAVIOUR = {
    "stale cache", "accumulates", "not deterministic", "mutates x", "mutates params", "mutates dy", "shares memory",
}  # fmt: skip

every_target = pytest.mark.parametrize(("right", "width"), TARGETS, ids=[repr(right) for right, _ in TARGETS])


def own(case):
    """The case on copies, which a fault may write into."""
    copied = copy.copy(case)
    copied.args = jax.tree.map(lambda a: a.copy(), case.args)
    copied.dy = case.dy.copy() if hasattr(case.dy, "copy") else case.dy
    return copied


@every_target
def test_the_right_target_is_found_right_on_every_case(right, width, cases_of):
    for case in cases_of(right, width):
        assert case.wrong(case.backward(right, case.forward(right)[1])) == set()


@every_target
def test_every_fault_of_values_gives_a_wrong_gradient_and_only_where_it_says(right, width, cases_of):
    for fault in seeded_faults(right):
        if fault.fault in BEHAVIOUR:
            continue
        wrong = set()
        for case in cases_of(right, width):
            wrong |= case.wrong(case.backward(fault.target, case.forward(fault.target)[1]))
        assert wrong, fault
        if fault.gradient and not fault.gradient.startswith("layers"):
            # In a chain an error that is handed down also spoils what lies below.
            assert fault.gradient in wrong if isinstance(right, tn.Sequential) else wrong == {fault.gradient}, fault


@every_target
def test_no_fault_changes_the_forward_pass(right, width, cases_of):
    for fault in seeded_faults(right):
        for case in map(own, cases_of(right, width)):
            y, expected = own(case).forward(fault.target)[0], case.forward(right)[0]
            assert y.dtype == expected.dtype
            np.testing.assert_array_max_ulp(y, expected, 4)  # a copy may be laid out otherwise


@every_target
def test_a_mutating_fault_writes_into_what_it_names_and_into_nothing_else(right, width, cases_of):
    for fault in seeded_faults(right):
        case = own(cases_of(right, width)[0])
        case.backward(fault.target, case.forward(fault.target)[1])
        given = cases_of(right, width)[0]
        first, second = (
            not all(map(np.array_equal, leaves(a), leaves(b))) for a, b in zip(case.args, given.args, strict=True)
        )
        x, params = (first, second) if isinstance(right, tn.Loss) else (second, first)
        changed = {"mutates x": x, "mutates params": params, "mutates dy": not np.array_equal(case.dy, given.dy)}
        assert {name for name, is_so in changed.items() if is_so} == {fault.fault} & changed.keys(), fault


@every_target
@pytest.mark.parametrize("name", ["accumulates", "not deterministic"])
def test_a_repeated_call_differs(right, width, name, cases_of):
    case = own(cases_of(right, width)[0])
    for fault in (fault for fault in seeded_faults(right) if fault.fault == name):
        cache = case.forward(fault.target)[1]
        first, second = (case.backward(fault.target, cache) for _ in range(2))
        assert any(not np.array_equal(first[key], second[key]) for key in first), fault


@every_target
def test_a_stale_cache_gives_the_gradient_of_another_forward_pass(right, width, cases_of):
    a, _, b, c = map(own, cases_of(right, width)[:4])  # of one shape, and with other parameters
    for fault in (fault for fault in seeded_faults(right) if fault.fault == "stale cache"):
        caches = [case.forward(fault.target)[1] for case in (a, b, c)]
        got = [case.backward(fault.target, cache) for case, cache in zip((a, b, c), caches, strict=True)]
        assert any(case.wrong(g) for case, g in zip((a, b, c), got, strict=True)), fault


@every_target
def test_shared_memory_is_overwritten_or_belongs_to_the_cache(right, width, cases_of):
    case = own(cases_of(right, width)[0])
    for fault in (fault for fault in seeded_faults(right) if fault.fault == "shares memory"):
        case.dy = 1.0 if isinstance(right, tn.Loss) else case.dy
        cache = case.forward(fault.target)[1]
        results = [next(iter(case.backward(fault.target, cache).values())) for _ in range(3)]
        assert any(np.shares_memory(results[-1], earlier) for earlier in results[:-1]), fault


def test_the_names_are_those_of_the_table():
    faults = [fault for right, _ in TARGETS for fault in seeded_faults(right)]
    assert {fault.fault for fault in faults} < set(FAULTS)
    assert len({fault.name for fault in faults}) >= 44
    assert {fault.name for fault in faults if fault.fault == "scaled"} >= {"scaled by 2", "scaled by 1/m"}


@pytest.mark.parametrize("right", [right for right, _ in TARGETS], ids=repr)
def test_no_two_faults_of_a_target_have_one_description(right):
    faults = [(fault.name, fault.gradient, fault.description) for fault in seeded_faults(right)]
    assert len(faults) == len(set(faults))


def test_a_faulty_layer_is_a_layer_like_any_other():
    fault = seeded_faults(tn.Linear(4, 3))[0]
    assert isinstance(fault.target, tn.Linear)
    wider = dataclasses.replace(fault.target, n_in=6)
    params = wider.init(np.random.default_rng(0), np.float64)
    assert wider.forward(params, np.ones((2, 6)))[0].shape == (2, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fault.target.n_in = 5


@every_target
def test_faults_run_compiled(right, width, cases_of):
    case = cases_of(right, width)[0]
    args, dy = jax.tree.map(lambda a: np.asarray(a, np.float32), (case.args, case.dy))
    for fault in seeded_faults(right)[:: 1 if width == 3 else 7]:

        def both(args, dy, target=fault.target):
            cache = target.forward(*args)[1]
            return target.backward(cache, dy) if isinstance(target, tn.Loss) else target.backward(args[0], cache, dy)

        jax.eval_shape(both, args, dy)


def test_a_loss_that_needs_its_own_inputs_gets_them():
    rng = np.random.default_rng(0)
    faults = seeded_faults(tn.SquaredError(), inputs=(rng.standard_normal((2, 6)), rng.standard_normal((2, 6))))
    assert "scaled by 1/n_out" in {fault.name for fault in faults}


def test_a_fault_that_is_none_for_a_target_is_left_out():
    assert "transpose" not in {f.name for f in seeded_faults(tn.Linear(4, 3)) if f.gradient == "params.b"}
    assert "W for Wᵀ" not in {f.name for f in seeded_faults(tn.Linear(4, 3))}
    assert "scaled by 1/m" not in {f.name for f in seeded_faults(tn.Linear(4, 3), inputs=(np.ones((1, 4)),))}


def test_a_target_that_is_no_layer_is_refused():
    with pytest.raises(TypeError, match="target is <class"):
        seeded_faults(tn.Sigmoid)


def test_inputs_may_be_a_shape_an_array_or_integers():
    image = seeded_faults(tn.Conv2d(2, 3, kernel=2), inputs=(3, 2, 4, 4))
    assert {f.gradient for f in image} >= {"x", "params.W", "params.b"}
    assert len(seeded_faults(tn.Linear(4, 3), inputs=np.ones((5, 4)))) > 100
    of_embedding = seeded_faults(tn.Embedding(5, 3))
    assert {f.gradient for f in of_embedding} == {"params.W"}  # integers do not vary


def test_importing_tinynet_does_not_import_the_faults():
    code = "import sys, tinynet; sys.exit('tinynet.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
