"""The sigmoid at its ends and at 0, its accuracy, its derivative against JAX, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import tinynet as tn
from tests.reference import assert_within, vjp_by_jax

SIGMOID = tn.Sigmoid()
DTYPES = [np.float16, np.float32, np.float64, np.longdouble]


def f(z):
    return SIGMOID.forward({}, z)[0]


def f_prime(z):
    a, cache = SIGMOID.forward({}, z)
    return SIGMOID.backward({}, cache, np.ones_like(a))[0]


def ulps(got, exact):
    """|got − exact|, entry by entry, in units in the last place of the exact value as `got` would store it."""
    return np.abs(got - exact) / np.spacing(exact.astype(got.dtype)).astype(exact.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_limits_are_exact_and_no_warning_is_raised(dtype):
    z = np.array([1e4, -1e4, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_array_equal(f(z)[2:], np.array([1, 0, 1, 0], dtype))
        np.testing.assert_array_equal(f_prime(z)[2:], 0)
        assert f(z)[0] == 1
        # float's e^−10000 is 0; longdouble, where it is wider than float64, can still hold it
        assert f(z)[1] == np.exp(z[1])
        assert f(z).dtype == f_prime(z).dtype == dtype
    assert np.isnan(f(np.array([np.nan], dtype))).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_at_ten_thousand_it_is_exactly_0_and_1(dtype):
    np.testing.assert_array_equal(f(np.array([1e4, -1e4, 0, -0.0], dtype)), [1, 0, 0.5, 0.5])


@pytest.mark.parametrize(("dtype", "more"), [(np.float64, 0.5), (np.float32, 1.5)])
def test_it_is_as_accurate_as_scipy_where_scipy_is_accurate(dtype, more):
    """Both against (1) in longdouble, from where f is still a normal number to where it is 1.

    At worst both are 2.2 ulp off in float64. In float32 scipy's is 2.2 off and ours 3.2, as the e^−|z| of NumPy it
    starts from is itself 2.3 ulp off there.
    """
    z = np.concatenate([np.linspace(np.log(np.finfo(dtype).tiny) + 1, 40, 200_001), np.linspace(-9, 9, 90_001)])
    z = z.astype(dtype)
    exact = 1 / (1 + np.exp(-z.astype(np.longdouble)))
    ours, scipys = ulps(f(z), exact), ulps(scipy.special.expit(z), exact)
    assert ours.max() <= scipys.max() + more
    assert ours.mean() <= scipys.mean() + more / 10


def test_below_the_normal_numbers_it_still_follows_the_exponential():
    z = np.array([-720.0, -740.0, -745.0, -746.0])
    np.testing.assert_array_equal(f(z), np.exp(z))
    assert f(z)[2] > 0


def test_f_prime_keeps_its_digits_where_the_unit_is_saturated():
    """1 − f(z) has none left at z = 40, so f (1 − f) is 0; e^−z / (1 + e^−z)² is exact."""
    z = np.array([-700.0, -40.0, -18.0, -6.0, 0.0, 6.0, 18.0, 40.0, 700.0])
    wide = z.astype(np.longdouble)
    exact = np.exp(-wide) / (1 + np.exp(-wide)) ** 2
    assert ulps(f_prime(z), exact).max() <= 3
    assert f(z)[-2] * (1 - f(z)[-2]) == 0


@pytest.mark.parametrize("scale", [1.0, 6.0, 1e-3])
@pytest.mark.parametrize("shape", [(5,), (1, 1), (4, 3), (2, 3, 4), (0, 3), ()])
def test_backward_is_the_vjp_of_forward(shape, scale):
    rng = np.random.default_rng(0)
    z, da = scale * rng.normal(size=shape), rng.normal(size=shape)
    a, cache = SIGMOID.forward({}, z)
    dz, dparams = SIGMOID.backward({}, cache, da)
    a_jax, dz_jax, _ = vjp_by_jax(SIGMOID, {}, z, da)
    assert dparams == {} == SIGMOID.param_grads({}, cache, da)
    assert_within((a, dz), (a_jax, dz_jax))
    with jax.enable_x64(True):
        assert_within(a, jax.nn.sigmoid(z))


def test_jax_grad_through_it_is_finite_far_out_and_a_quarter_at_0():
    for enabled in (True, False):
        with jax.enable_x64(enabled):
            slope = jax.vmap(jax.grad(lambda z: SIGMOID.forward({}, z)[0]))
            np.testing.assert_array_equal(slope(jnp.array([0.0, -0.0])), [0.25, 0.25])
            np.testing.assert_array_equal(slope(jnp.array([1e4, -1e4])), [0, 0])


def test_the_backward_pass_at_0_is_a_quarter():
    np.testing.assert_array_equal(f_prime(np.array([0.0, -0.0])), [0.25, 0.25])


def test_it_leaves_its_arguments_alone_and_lends_no_memory():
    z = np.random.default_rng(0).normal(size=(4, 3))
    z.flags.writeable = False
    a, cache = SIGMOID.forward({}, z)
    kept = cache.copy()
    dz, _ = SIGMOID.backward({}, cache, z)
    assert not any(np.shares_memory(p, q) for p, q in [(a, z), (a, cache), (dz, z), (dz, cache)])
    np.testing.assert_array_equal(cache, kept)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, r"Sigmoid\(\): x is list; expected an array; use numpy.asarray\(x, float\)"),
        (None, TypeError, r"Sigmoid\(\): x is None; expected an array"),
        (np.ones(3, int), TypeError, r"x has dtype int64; expected floating point; use x.astype\(float\)"),
        (np.ones(3, object), TypeError, r"x has dtype object; expected floating point"),
        (np.ones(3, bool), TypeError, r"x has dtype bool; expected floating point"),
        (np.ones(3, complex), TypeError, r"x has dtype complex128; expected floating point"),
    ],
)
def test_input_that_is_not_floating_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        SIGMOID.forward({}, x)


def test_an_upstream_gradient_of_another_shape_is_refused():
    _, cache = SIGMOID.forward({}, np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"da has shape \(3,\); expected \(3, 1\), that of the output; use da.reshape"):
        SIGMOID.backward({}, cache, np.ones(3))
