"""Each activation: its values against an independent library, its derivative against jax.vjp, its limits and kinks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import tinynet as tn
from tests.gradient_check import assert_close, check_layer
from tinynet.special import expit, normal, normal_density
from tinynet.verification.tolerance import UNIT, K

ACTIVATIONS = [
    tn.Sigmoid(),
    tn.Tanh(),
    tn.ReLU(),
    tn.LeakyReLU(),
    tn.LeakyReLU(slope=0.3),
    tn.Softplus(),
    tn.SiLU(),
    tn.GELU(),
    tn.GELU("tanh"),
    tn.Softmax(),
]
REFERENCES = {
    "tanh": (tn.Tanh(), jax.nn.tanh),
    "relu": (tn.ReLU(), jax.nn.relu),
    "leaky relu": (tn.LeakyReLU(0.2), lambda z: jax.nn.leaky_relu(z, 0.2)),
    "softplus": (tn.Softplus(), jax.nn.softplus),
    "softplus, numpy": (tn.Softplus(), lambda z: np.logaddexp(z, 0)),
    "silu": (tn.SiLU(), jax.nn.silu),
    "silu, scipy": (tn.SiLU(), lambda z: z * scipy.special.expit(z)),
    "gelu": (tn.GELU(), lambda z: jax.nn.gelu(z, approximate=False)),
    "gelu, scipy": (tn.GELU(), lambda z: z * scipy.special.ndtr(z)),
    "gelu tanh": (tn.GELU("tanh"), lambda z: jax.nn.gelu(z, approximate=True)),
    "softmax": (tn.Softmax(), jax.nn.softmax),
    "softmax, scipy": (tn.Softmax(), lambda z: scipy.special.softmax(z, axis=-1)),
}
NORMAL = np.random.default_rng(0).normal(size=(4, 3))
HUGE = np.array([[1e4, -1e4, 0.5], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [0.1, -1e4, -0.1]])
INPUTS = {
    "normal": NORMAL,
    "large": 6 * NORMAL,
    "tiny": 1e-6 * NORMAL,
    "huge": HUGE,
    "one sample": NORMAL[:1],
    "no sample": NORMAL[:0],
    "leading axes": NORMAL.reshape(2, 2, 3),
    "width 1": NORMAL[:, :1],
}


def z_grid(seed: int = 0) -> np.ndarray:
    return np.concatenate([np.linspace(-30, 30, 601), np.random.default_rng(seed).normal(size=423)]).reshape(32, 32)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS.keys())
def test_backward_is_the_vjp_of_forward(layer, x):
    check_layer(layer, x)


@pytest.mark.parametrize("layer", [a for a in ACTIVATIONS if not isinstance(a, tn.ReLU | tn.LeakyReLU)], ids=repr)
def test_backward_is_the_vjp_of_forward_at_exact_zeros(layer):
    check_layer(layer, np.zeros((4, 3)))


@pytest.mark.parametrize("layer", [a for a in ACTIVATIONS if not isinstance(a, tn.Softmax)], ids=repr)
def test_a_saturated_unit_alone_keeps_its_digits(layer):
    for z in (-18.0, -9.0, -6.0, 6.0, 9.0, 18.0):
        check_layer(layer, np.array([[z]]))


@pytest.mark.parametrize(("layer", "reference"), REFERENCES.values(), ids=REFERENCES.keys())
def test_forward_equals_an_independent_library(layer, reference):
    z = z_grid()
    with jax.enable_x64(True):
        expected = np.asarray(reference(z))
    assert_close(layer.forward({}, z)[0], expected, UNIT, K, repr(layer))


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_forward_is_finite_and_silent_at_the_ends_and_lets_nan_through(layer):
    for dtype in (np.float32, np.float64):
        z = np.array([[1e4, -1e4, 0.0, -0.0]], dtype)
        y, cache = layer.forward({}, z)
        dx, _ = layer.backward({}, cache, np.ones_like(y))
        assert np.isfinite(y).all()
        assert np.isfinite(dx).all()
        assert np.isnan(layer.forward({}, np.array([[np.nan]], dtype))[0]).all()


@pytest.mark.parametrize(("layer", "slope"), [(tn.ReLU(), 0.0), (tn.LeakyReLU(0.3), 0.3)], ids=repr)
def test_at_the_kink_the_slope_is_that_of_the_left_side(layer, slope):
    z = np.array([0.0, -0.0])
    y, cache = layer.forward({}, z)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(layer.backward({}, cache, np.ones(2))[0], slope)
    with jax.enable_x64(True):
        by_jax = jax.grad(lambda z: layer.forward({}, z)[0].sum())(jax.numpy.array(z))
    np.testing.assert_array_equal(by_jax, slope)


def test_softmax_is_a_distribution_and_ignores_a_common_shift():
    z = 50 * np.random.default_rng(0).normal(size=(20, 7))
    a = tn.Softmax().forward({}, z)[0]
    np.testing.assert_allclose(a.sum(axis=-1), 1, rtol=0, atol=4 * UNIT)
    np.testing.assert_allclose(tn.Softmax().forward({}, z + 1e4)[0], a, rtol=1e-11)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_bad_input_is_named(layer):
    with pytest.raises(TypeError, match=r"x has dtype int64; expected floating point"):
        layer.forward({}, np.ones((2, 3), np.int64))
    with pytest.raises(TypeError, match=r"x is list; expected an array"):
        layer.forward({}, [[1.0]])
    cache = layer.forward({}, np.ones((2, 3)))[1]
    with pytest.raises(ValueError, match=r"da has shape \(2, 1\); expected \(2, 3\), that of the output"):
        layer.backward({}, cache, np.ones((2, 1)))


def test_bad_settings_are_named():
    with pytest.raises(TypeError, match=r"LeakyReLU: slope is 'x'; expected a number"):
        tn.LeakyReLU("x")
    with pytest.raises(ValueError, match=r"LeakyReLU: slope is nan; expected a finite number"):
        tn.LeakyReLU(float("nan"))
    with pytest.raises(ValueError, match=r'GELU: approximate is \'erf\'; expected "none" or "tanh"'):
        tn.GELU("erf")
    with pytest.raises(ValueError, match=r"Softmax\(\): x has shape \(3, 0\)"):
        tn.Softmax().forward({}, np.ones((3, 0)))


def test_ndtr_keeps_its_digits_far_into_the_tail():
    z = np.array([-5.0, -10.0, -20.0, -30.0])
    exact = [2.866515718791939e-07, 7.619853024160526e-24, 2.753624118606234e-89, 4.906713927148187e-198]
    np.testing.assert_allclose(normal(z)[0], exact, rtol=K * UNIT)
    z = np.linspace(-5, 9, 1001)
    np.testing.assert_allclose(normal(z)[0], scipy.special.ndtr(z), rtol=128 * UNIT)  # scipy is off by x² units


def test_the_derivative_of_ndtr_by_jax_is_the_normal_density():
    z = np.linspace(-35, 9, 1001)
    with jax.enable_x64(True):
        slope = np.asarray(jax.jit(jax.vmap(jax.grad(lambda z: normal(z)[0])))(z))
    assert_close(slope[z > 0], normal_density(z[z > 0]), UNIT, K, "above 0")
    np.testing.assert_allclose(slope[z <= 0], normal_density(z[z <= 0]), rtol=K * UNIT)


def test_normal_density_and_expit_equal_scipy():
    z = np.linspace(-9, 9, 1001)
    np.testing.assert_allclose(normal_density(z), scipy.stats.norm.pdf(z), rtol=64 * UNIT)
    np.testing.assert_allclose(expit(z), scipy.special.expit(z), rtol=4 * UNIT)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize(("xp", "dtype"), [(np, np.float16), (jnp, np.float16), (jnp, jnp.bfloat16)])
def test_gelu_in_half_precision_is_that_of_float64_rounded(approximate, xp, dtype):
    layer = tn.GELU(approximate)
    z = np.concatenate([np.linspace(-6, 6, 99), [-6e4, -300, 0, 300, 6e4]]).astype(dtype)
    a, cache = layer.forward({}, xp.asarray(z))
    dz, _ = layer.backward({}, cache, xp.ones_like(z))
    assert a.dtype == dz.dtype == dtype
    with jax.enable_x64(True):
        gelu = functools.partial(jax.nn.gelu, approximate=approximate == "tanh")
        expected, back = jax.vjp(gelu, jnp.asarray(z, "float64"))
        (slope,) = back(jnp.ones_like(expected))
    unit = float(jnp.finfo(dtype).eps)
    for got, exact in ((a, expected), (dz, slope)):
        np.testing.assert_allclose(np.asarray(got).astype(np.float64), exact, rtol=unit, atol=unit * 2**-8)


@pytest.mark.parametrize("z", [1e155, 1e200, 1e300])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out_is_the_identity_and_0(approximate, z):
    layer = tn.GELU(approximate)
    z = np.array([z, -z])
    a, cache = layer.forward({}, z)
    np.testing.assert_array_equal(a, [z[0], 0])
    np.testing.assert_array_equal(layer.backward({}, cache, np.ones(2))[0], [1, 0])
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.grad(lambda z: layer.forward({}, z)[0].sum())(z), [1, 0])
