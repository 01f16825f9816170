"""Pytrees: the same leaves, order and results as `jax.tree`, and errors that say where trees differ."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinynet as tn
from tinynet.trees import check_like, leaves, leaves_with_paths, map_leaves, parts, with_part

TREES = st.recursive(
    st.integers(),
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["b", "W", "a"]), part, max_size=3)
    ),
    max_leaves=10,
)
PARAMS = {"W": np.zeros((2, 3)), "b": np.zeros(2)}, {}, ({"W": np.zeros((1, 2)), "b": np.zeros(1)},)


@settings(max_examples=100)
@given(tree=TREES)
def test_leaves_and_maps_are_those_of_jax(tree):
    assert leaves(tree) == jax.tree.leaves(tree)
    assert map_leaves(lambda n: 2 * n, tree) == jax.tree.map(lambda n: 2 * n, tree)
    assert map_leaves(lambda a, b, c: a + b - c, tree, tree, tree) == tree
    names = {jax.tree_util.keystr(path).replace("'", '"') for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    assert {path for path, _ in leaves_with_paths(tree)} == names


def test_a_path_is_the_expression_that_reaches_the_leaf():
    for path, leaf in leaves_with_paths(PARAMS):
        assert eval(f"PARAMS{path}") is leaf
    assert [path for path, _ in leaves_with_paths(PARAMS)] == ['[0]["W"]', '[0]["b"]', '[2][0]["W"]', '[2][0]["b"]']


def test_dicts_keep_their_order_of_keys():
    assert list(map_leaves(abs, {"b": 1, "W": -2})) == ["b", "W"]


@pytest.mark.parametrize(
    ("tree", "other", "message"),
    [
        ({"W": 1}, {"V": 1}, r"a dict with keys \['W'\] against a dict with keys \['V'\]"),
        ({"W": 1}, (1,), r"a dict with keys \['W'\] against a tuple of 1"),
        ((1, 2), (1,), "a tuple of 2 against a tuple of 1"),
        ((1, 2), 3, "a tuple of 2 against int"),
    ],
)
def test_trees_that_differ_are_not_mapped_together(tree, other, message):
    with pytest.raises(ValueError, match=f"trees differ in structure: {message}"):
        map_leaves(lambda a, b: a + b, tree, other)


def test_a_tree_is_like_itself():
    check_like("fit", "params", PARAMS, PARAMS, "the network")
    check_like("fit", "params", list(PARAMS), PARAMS, "the network")


@pytest.mark.parametrize(
    ("tree", "error", "message"),
    [
        (PARAMS[:2], ValueError, "fit: params has 2 entries; expected 3, as the network has"),
        (PARAMS[0], TypeError, r"fit: params is a dict with keys \['W', 'b'\]; expected a tuple of 3"),
        (None, TypeError, "fit: params is None; expected a tuple of 3"),
        (
            ({}, *PARAMS[1:]),
            ValueError,
            r"params\[0\] is a dict with keys \[\]; expected a dict with keys \['W', 'b'\]",
        ),
        ((PARAMS[0], PARAMS[0], PARAMS[2]), ValueError, r"params\[1\] is a dict with keys \['W', 'b'\]; expected a"),
        ((PARAMS[0], (), PARAMS[2]), TypeError, r"params\[1\] is a tuple of 0; expected a dict"),
        (
            ({**PARAMS[0], "b": [0.0, 0.0]}, *PARAMS[1:]),
            TypeError,
            r'params\[0\]\["b"\] is a list of 2; expected float64',
        ),
        (
            ({**PARAMS[0], "W": np.zeros((3, 2))}, *PARAMS[1:]),
            ValueError,
            r'fit: params\[0\]\["W"\] has shape \(3, 2\); expected \(2, 3\), as the network has',
        ),
    ],
)
def test_a_tree_that_differs_is_told_where(tree, error, message):
    with pytest.raises(error, match=message):
        check_like("fit", "params", tree, PARAMS, "the network")


def test_the_parts_of_a_configuration_are_found_and_replaced_by_their_paths():
    optimizer = tn.Groups({"*.b": tn.SGD(0.1), "*": tn.Accumulate(tn.Adam(0.2), 3)})
    found = {path: part for path, part, holder in parts(optimizer) if isinstance(holder, tn.Optimizer)}
    assert found["groups", 0, 1, "lr"] == 0.1
    assert found["groups", 1, 1, "optimizer", "lr"] == 0.2
    changed = with_part(optimizer, ("groups", 1, 1, "optimizer", "lr"), 0.3)
    assert changed == tn.Groups({"*.b": tn.SGD(0.1), "*": tn.Accumulate(tn.Adam(0.3), 3)})
