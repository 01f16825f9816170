"""Argument checks: good arguments pass in silence, and each message names argument, given and expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinynet as tn
from tinynet.checks import check_features, check_floating, check_natural, check_positive_int, check_same_shape


def test_good_arguments_pass():
    for x in (np.zeros((5, 3)), np.zeros((5, 3), np.float16), jnp.zeros((5, 3)), jnp.zeros((5, 3), jnp.bfloat16)):
        check_floating("owner", "x", x)
        check_features("owner", x, 3)
        check_same_shape("owner", "x", x, (5, 3), "y")
    check_features("owner", np.zeros(3), 3)
    check_features("owner", np.zeros((0, 3)), 3)
    check_positive_int("owner", "n", 1)


def test_they_pass_under_a_trace():
    jax.jit(lambda x: check_features("owner", x, 3))(jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"owner: x has shape \(5, 3\); expected \(\.\.\., 4\)"):
        jax.jit(lambda x: check_features("owner", x, 4))(jnp.zeros((5, 3)))


def test_what_is_not_floating_is_named():
    with pytest.raises(TypeError, match=r"owner: x is list; expected an array; use numpy.asarray\(x, float\)"):
        check_floating("owner", "x", [1.0])
    with pytest.raises(TypeError, match=r"owner: x has dtype int64; expected floating point; use x.astype\(float\)"):
        check_floating("owner", "x", np.zeros(3, int))
    with pytest.raises(TypeError, match=r"owner: y has dtype int32"):
        check_same_shape("owner", "y", np.zeros(3, np.int32), (3,), "z")
    with pytest.raises(TypeError, match=r"owner: x has dtype bfloat16, of which NumPy has no arithmetic; use x.astype"):
        check_floating("owner", "x", np.zeros(3, jnp.bfloat16))


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (3, 0)])
def test_the_last_axis_is_the_features(shape):
    with pytest.raises(ValueError, match=r"owner: x has shape .*; expected \(\.\.\., 3\)"):
        check_features("owner", np.zeros(shape), 3)


def test_shapes_never_broadcast_and_the_hint_is_given_where_it_helps():
    with pytest.raises(ValueError, match=r"owner: y has shape \(3,\); expected \(3, 1\), that of z; use y.reshape"):
        check_same_shape("owner", "y", np.zeros(3), (3, 1), "z")
    with pytest.raises(ValueError, match=r"owner: y has shape \(1, 3\); expected \(2, 3\), that of z$"):
        check_same_shape("owner", "y", np.zeros((1, 3)), (2, 3), "z")


@pytest.mark.parametrize("n", [0, -3])
def test_a_number_below_1_is_refused(n):
    with pytest.raises(ValueError, match=f"owner: n is {n}; expected at least 1"):
        check_positive_int("owner", "n", n)


@pytest.mark.parametrize("n", [1.0, "1", None, True, [1]])
def test_what_is_no_int_is_refused(n):
    with pytest.raises(TypeError, match=r"owner: n is .*; expected an int"):
        check_positive_int("owner", "n", n)


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_an_integer_of_numpy_is_an_int(integer):
    for check in (check_positive_int, check_natural):
        n = check("owner", "n", integer(3))
        assert n == 3
        assert type(n) is int


def test_layers_keep_python_ints():
    for layer, like in (
        (tn.Linear(np.int64(3), np.uint8(2)), tn.Linear(3, 2)),
        (tn.Conv2d(1, np.int32(2), np.int64(3), padding=np.int64(1)), tn.Conv2d(1, 2, 3, padding=1)),
        (tn.MaxPool2d(np.int64(2)), tn.MaxPool2d(2)),
        (tn.AvgPool2d(2, np.int64(1)), tn.AvgPool2d(2, 1)),
        (tn.Dropout(0.5, np.uint32(7)), tn.Dropout(0.5, 7)),
    ):
        assert repr(layer) == repr(like)
