"""Linear: its values, its gradients against JAX whatever the layout, and what it refuses."""

import jax
import numpy as np
import pytest

import tinynet as tn
from tests.reference import assert_identical, assert_within, random_params, vjp_by_jax

LAYER = tn.Linear(4, 3)


@pytest.fixture
def params():
    return random_params(LAYER, np.random.default_rng(0))


@pytest.mark.parametrize("leading", [(), (1,), (5,), (2, 3), (2, 1, 3), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("widths", [(4, 3), (3, 3), (1, 3), (4, 1), (1, 1)], ids=str)
def test_gradients_are_those_of_jax_for_any_leading_axes(leading, widths):
    layer, rng = tn.Linear(*widths), np.random.default_rng(1)
    params = random_params(layer, rng)
    x, dz = rng.normal(size=(*leading, layer.n_in)), rng.normal(size=(*leading, layer.n_out))
    z, cache = layer.forward(params, x)
    dx, dparams = layer.backward(params, cache, dz)
    assert_within((z, dx, dparams), vjp_by_jax(layer, params, x, dz))
    assert_identical(layer.param_grads(params, cache, dz), dparams)


def test_forward_is_W_a_plus_b_for_each_sample(params):
    x = np.random.default_rng(1).normal(size=(5, 4))
    z, _ = LAYER.forward(params, x)
    for i, a in enumerate(x):
        assert_within(LAYER.forward(params, a)[0], params["W"] @ a + params["b"])
        np.testing.assert_allclose(z[i], params["W"] @ a + params["b"], rtol=1e-13)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "column-strided": lambda a: np.repeat(a, 3, axis=0)[::3],
    "read-only": lambda a: np.frombuffer(a.tobytes()).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_layout_of_the_arrays_makes_no_difference(layout, params):
    rng = np.random.default_rng(1)
    x, dz = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    z, cache = LAYER.forward({k: layout(p) for k, p in params.items()}, layout(x))
    dx, dparams = LAYER.backward({k: layout(p) for k, p in params.items()}, cache, layout(dz))
    assert_within((z, dx, dparams), vjp_by_jax(LAYER, params, x, dz))


def test_a_broadcast_sample_is_as_good_as_its_copies(params):
    x = np.broadcast_to(np.random.default_rng(1).normal(size=4), (5, 4))
    dz = np.broadcast_to(1.0, (5, 3))
    z, cache = LAYER.forward(params, x)
    dx, dparams = LAYER.backward(params, cache, dz)
    assert_within((z, dx, dparams), vjp_by_jax(LAYER, params, x.copy(), dz.copy()))


def test_no_sample_gives_gradients_of_zero(params):
    _, cache = LAYER.forward(params, np.zeros((0, 4)))
    dx, dparams = LAYER.backward(params, cache, np.zeros((0, 3)))
    assert dx.shape == (0, 4)
    assert_identical(dparams, {"W": np.zeros((3, 4)), "b": np.zeros(3)})


def test_two_forward_passes_are_not_confused(params):
    rng = np.random.default_rng(1)
    (x1, x2), dz = rng.normal(size=(2, 5, 4)), rng.normal(size=(5, 3))
    _, first = LAYER.forward(params, x1)
    expected = LAYER.backward(params, first, dz)
    LAYER.forward(params, x2)
    assert_identical(LAYER.backward(params, first, dz), expected)


def test_nothing_handed_in_is_changed_or_handed_out(params):
    rng = np.random.default_rng(1)
    x, dz = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    for array in (x, dz, *params.values()):
        array.flags.writeable = False
    z, cache = LAYER.forward(params, x)
    dx, dparams = LAYER.backward(params, cache, dz)
    for mine in (z, dx, *dparams.values()):
        assert not any(np.shares_memory(mine, given) for given in (x, dz, *params.values()))


def test_the_gradient_of_the_bias_of_one_sample_is_its_own_array(params):
    dz = np.ones(3)
    db = LAYER.param_grads(params, np.ones(4), dz)["b"]
    assert not np.shares_memory(db, dz)


@pytest.mark.parametrize(("of_params", "of_x"), [(np.float32, np.float32), (np.float64, np.float64)])
def test_the_gradients_have_the_dtype_of_the_parameters(of_params, of_x):
    params = random_params(LAYER, np.random.default_rng(0), of_params)
    z, cache = LAYER.forward(params, np.ones((2, 4), of_x))
    dx, dparams = LAYER.backward(params, cache, z)
    assert {a.dtype for a in (z, dx, *dparams.values())} == {np.dtype(of_params)}


def test_float32_data_on_float64_parameters_is_computed_in_float64(params):
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    z, cache = LAYER.forward(params, x)
    dx, dparams = LAYER.backward(params, cache, z)
    assert_within((z, dx, dparams), vjp_by_jax(LAYER, params, x, z))
    assert {a.dtype for a in (z, dx, *dparams.values())} == {np.dtype(np.float64)}


def test_float64_data_on_float32_parameters_loses_nothing_of_the_data():
    params = random_params(LAYER, np.random.default_rng(0), np.float32)
    x = np.random.default_rng(1).normal(size=(5, 4))
    z, cache = LAYER.forward(params, x)
    dx, dparams = LAYER.backward(params, cache, z)
    assert_within((z, dx, dparams), vjp_by_jax(LAYER, params, x, z))


def test_init_gives_the_documents_orientation_and_biases_of_0():
    params = LAYER.init(np.random.default_rng(0))
    assert {k: (p.shape, p.dtype) for k, p in params.items()} == {
        "W": ((3, 4), np.dtype(np.float32)),
        "b": ((3,), np.dtype(np.float32)),
    }
    assert not params["b"].any()
    assert params["W"].all()
    assert LAYER.init(np.random.default_rng(0), np.float64)["W"].dtype == np.float64


def test_a_layer_is_its_configuration():
    assert tn.Linear(4, 3) == LAYER
    assert hash(tn.Linear(4, 3)) == hash(LAYER)
    assert tn.Linear(3, 4) != LAYER
    assert repr(LAYER) == "Linear(n_in=4, n_out=3)"
    with pytest.raises(AttributeError):
        LAYER.n_in = 5


@pytest.mark.parametrize(
    ("widths", "error", "message"),
    [
        ((0, 3), ValueError, "Linear: n_in is 0; expected at least 1"),
        ((4, -1), ValueError, "Linear: n_out is -1; expected at least 1"),
        ((4.0, 3), TypeError, "Linear: n_in is 4.0; expected an int"),
        ((4, "3"), TypeError, "Linear: n_out is '3'; expected an int"),
        ((True, 3), TypeError, "Linear: n_in is True; expected an int"),
        ((4, None), TypeError, "Linear: n_out is None; expected an int"),
    ],
)
def test_widths_that_are_no_widths_are_refused(widths, error, message):
    with pytest.raises(error, match=message):
        tn.Linear(*widths)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((5, 3)), ValueError, r"Linear\(n_in=4, n_out=3\): x has shape \(5, 3\); expected \(\.\.\., 4\)"),
        (np.zeros(()), ValueError, r"x has shape \(\); expected \(\.\.\., 4\)"),
        (np.zeros((4, 5)), ValueError, r"x has shape \(4, 5\); expected \(\.\.\., 4\)"),
        (np.zeros((5, 4), int), TypeError, r"x has dtype int64; expected floating point"),
        (np.zeros((5, 4), object), TypeError, r"x has dtype object; expected floating point"),
        ([[1.0] * 4], TypeError, r"x is list; expected an array"),
    ],
)
def test_input_that_does_not_fit_is_refused(x, error, message, params):
    with pytest.raises(error, match=message):
        LAYER.forward(params, x)


@pytest.mark.parametrize("shape", [(5, 4), (3, 5), (5,), (15,), (1, 5, 3)], ids=str)
def test_an_upstream_gradient_that_does_not_fit_is_refused(shape, params):
    _, cache = LAYER.forward(params, np.zeros((5, 4)))
    for method in (LAYER.backward, LAYER.param_grads):
        with pytest.raises(ValueError, match=r"dz has shape .*; expected \(5, 3\), that of the output"):
            method(params, cache, np.zeros(shape))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r'params is \{\}; expected a dict with "W" and "b"'),
        ({"W": np.zeros((3, 4))}, r'expected a dict with "W" and "b"'),
        (None, r'params is None; expected a dict with "W" and "b"'),
        ((), r'params is \(\); expected a dict with "W" and "b"'),
        ({"W": np.zeros((4, 3)), "b": np.zeros(3)}, r"params have W \(4, 3\) and b \(3,\); expected W \(3, 4\) and b"),
        ({"W": np.zeros((3, 4)), "b": np.zeros((3, 1))}, r"b \(3, 1\); expected W \(3, 4\) and b \(3,\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        LAYER.forward(params, np.zeros((5, 4)))


def test_the_same_text_runs_on_jax_arrays_and_under_jit(params):
    rng = np.random.default_rng(1)
    x, dz = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    with jax.enable_x64(True):
        on_jax = jax.jit(lambda *args: LAYER.backward(args[0], LAYER.forward(args[0], args[1])[1], args[2]))
        dx, dparams = on_jax(params, x, dz)
        assert isinstance(dx, jax.Array)
        assert_within(LAYER.backward(params, x, dz), (np.asarray(dx), {k: np.asarray(g) for k, g in dparams.items()}))
