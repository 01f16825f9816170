"""Derivatives of functions that can only be called."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from scipy import special

import tinynet as tn
from tinynet.verification.adapters.subject import TargetError
from tinynet.verification.numerical import NumericalOracle, ridders

rng = np.random.default_rng(5)
x, w = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
dy = rng.standard_normal((4, 2))


def relative(got, exact):
    return np.max(np.abs(got - exact)) / np.max(np.abs(exact))


def test_the_complex_step_is_exact_to_rounding_and_has_no_uncertainty():
    oracle = NumericalOracle(lambda a: (np.tanh(a["x"] @ a["w"]),), ("x", "w"), why="a test")
    exact = oracle({"x": x, "w": w}, (dy,))
    dz = dy * (1 - np.tanh(x @ w) ** 2)
    assert relative(exact.grads["x"], dz @ w.T) < 1e-14
    assert relative(exact.grads["w"], x.T @ dz) < 1e-14
    assert exact.uncertainty == {"x": 0.0, "w": 0.0}
    assert oracle.resolution == 0
    assert oracle.caveat == ""
    assert oracle.text == "complex step, confirmed by differences of your forward pass (a test)"


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_differences_know_their_own_error_at_every_scale(scale):
    oracle = NumericalOracle(lambda a: (special.erf(np.asarray(a["x"], float) / scale),), ("x",))  # refuses complex x
    exact = oracle({"x": scale * x}, (np.ones_like(x),))
    error = np.max(np.abs(exact.grads["x"] - 2 / np.sqrt(np.pi) * np.exp(-(x**2)) / scale))
    assert error <= exact.uncertainty["x"]
    assert 0 < oracle.resolution < 1e-8
    assert oracle.caveat == ""
    assert "differences" in oracle.text


def test_several_outputs_each_have_their_cotangent():
    oracle = NumericalOracle(lambda a: (np.abs(a["x"]), np.hypot(a["x"], 2.0)), ("x",))
    exact = oracle({"x": x}, (2 * np.ones_like(x), 3 * np.ones_like(x)))
    assert relative(exact.grads["x"], 2 * np.sign(x) + 3 * x / np.hypot(x, 2)) < 1e-9
    assert [y.shape for y in exact.y] == [x.shape, x.shape]


def test_a_complex_step_that_differences_contradict_is_not_taken():
    oracle = NumericalOracle(lambda a: (a["x"] * np.abs(a["x"]),), ("x",))  # |x| drops the imaginary part
    exact = oracle({"x": x}, (np.ones_like(x),))
    assert relative(exact.grads["x"], 2 * np.abs(x)) < 1e-9
    assert "complex" not in oracle.text


def test_a_wrong_complex_step_is_not_taken_where_rounding_hides_small_differences():
    exact = NumericalOracle(lambda a: (1e10 + np.abs(a["x"]) + 0 * a["x"],), ("x",))({"x": x}, (np.ones_like(x),))
    assert relative(exact.grads["x"], np.sign(x)) < 1e-3


def test_a_complex_step_is_confirmed_where_the_function_turns_often_within_a_step():
    exact = NumericalOracle(lambda a: (np.sin(1e4 * a["x"]),), ("x",))({"x": x}, (np.ones_like(x),))
    assert relative(exact.grads["x"], 1e4 * np.cos(1e4 * x)) < 1e-14
    assert exact.uncertainty == {"x": 0.0}


@pytest.mark.parametrize(("fault", "verdict"), [(1.0, "PASS"), (2.0, "FAIL")])
def test_a_loop_of_jax_that_cannot_be_followed_back_is_judged_far_out_too(fault, verdict):
    def forward(x, w):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1] @ w)), (0, x))[1]

    def backward(args, dy):
        (a, w), zs = map(np.asarray, args), []
        for _ in range(3):
            zs.append((a, a @ w))
            a = np.sin(a @ w)
        da, dw = np.asarray(dy), np.zeros_like(w)
        for a, z in reversed(zs):
            dz = da * np.cos(z)
            dw += fault * a.T @ dz
            da = dz @ w.T
        return da, dw

    assert tn.verify((forward, backward), inputs=((6, 4), (4, 4)), named=False).verdict == verdict


def test_an_array_that_does_not_move_y_has_gradient_zero_within_its_uncertainty():
    oracle = NumericalOracle(lambda a: (np.abs(a["x"] - a["x"].max()) + 0 * a["b"],), ("x", "b"))
    exact = oracle({"x": x, "b": np.ones(3)}, (np.ones_like(x),))
    assert np.max(np.abs(exact.grads["b"])) <= exact.uncertainty["b"] < 1e-9
    assert oracle.caveat == ""


def test_float32_inside_shows_in_the_uncertainty():
    oracle = NumericalOracle(lambda a: (np.tanh(np.abs(a["x"]).astype(np.float32)),), ("x",))
    exact = oracle({"x": x}, (np.ones_like(x),))
    error = np.max(np.abs(exact.grads["x"] - np.sign(x) * (1 - np.tanh(x) ** 2)))
    assert 1e-9 < error < exact.uncertainty["x"] < 1e-2


def test_noise_is_a_caveat_and_no_gradient():
    noise = np.random.default_rng(0)
    oracle = NumericalOracle(lambda a: (np.abs(a["x"]) + noise.standard_normal(a["x"].shape),), ("x",))
    oracle({"x": x}, (np.ones_like(x),))
    assert "x do not converge" in oracle.caveat


def test_infinite_outputs_say_nothing_about_the_resolution():
    oracle = NumericalOracle(lambda a: (np.exp(np.abs(a["x"])),), ("x",))
    oracle({"x": x}, (np.ones_like(x),))
    before = oracle.resolution
    assert not np.isfinite(oracle({"x": 1e4 * x}, (np.ones_like(x),)).y[0]).all()
    assert (oracle.resolution, oracle.caveat) == (before, "")


def test_an_array_with_no_entry_and_one_with_too_many():
    oracle = NumericalOracle(lambda a: (a["x"] * 2.0,), ("x",))
    assert oracle({"x": np.zeros((0, 3))}, (np.zeros((0, 3)),)).grads["x"].shape == (0, 3)
    with pytest.raises(TargetError, match="x has 10000 entries"):
        oracle({"x": np.ones(10000)}, (np.ones(10000),))


def test_the_table_of_differences_near_a_kink_takes_the_steps_that_do_not_reach_it():
    slope, error = ridders(lambda h: (np.array([abs(0.01 + h)]),), 0.1)
    assert abs(slope[0] - 1) <= error[0] < 1e-9


def test_the_forward_pass_is_not_called_again_for_another_cotangent():
    calls = []
    oracle = NumericalOracle(lambda a: (calls.append(1), np.abs(a["x"]))[1:], ("x",))
    oracle({"x": x}, (np.ones_like(x),))
    before = len(calls)
    oracle({"x": x}, (2 * np.ones_like(x),))
    assert len(calls) == before + 1
