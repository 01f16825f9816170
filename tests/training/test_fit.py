"""`fit`: the steps of gradient descent and SGD, what it records, when it stops, and what it refuses."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tinynet as tn
from tests.reference import assert_identical, assert_within, random_params, sigmoid_network
from tinynet.trees import leaves, map_leaves

NET = sigmoid_network(4, 3, 2)
SUM, MEAN = tn.SquaredError(), tn.SquaredError("mean")


@pytest.fixture
def params():
    return random_params(NET, np.random.default_rng(0))


@pytest.fixture
def xy():
    rng = np.random.default_rng(1)
    return rng.normal(size=(10, 4)), rng.uniform(size=(10, 2))


def fit(x, y, *, net=NET, loss=MEAN, **options):
    options = {"optimizer": tn.SGD(0.5), "epochs": 3} | options
    return tn.fit(net, loss, x, y, **options)


def error(params, x, y, loss=MEAN, net=NET):
    return float(loss.forward(net.forward(params, x)[0], y)[0])


def count_samples(seen):
    """A network that notes the batches it meets, each sample being its own number."""

    @dataclasses.dataclass(frozen=True)
    class Note(tn.Layer):
        def forward(self, params, x):
            seen.append(x[:, 0].astype(int).tolist())
            return x, None

        def backward(self, params, cache, dy):
            return dy, {}

    return Note()


# the steps


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("loss", "lr"), [(SUM, 0.1), (MEAN, 1.0)], ids=["sum", "mean"])
def test_100_steps_by_hand_are_100_steps_by_jax_grad(loss, lr, momentum, params, xy):
    """The reference shares nothing but the numbers it starts from: jax.nn, jax.grad and Optax."""
    x, y = xy
    result = fit(x, y, loss=loss, params=params, optimizer=tn.SGD(lr, momentum), epochs=100)
    m = 1 if loss is SUM else len(x)

    def E(params):
        a = x
        for i in (0, 2):
            a = jax.nn.sigmoid(a @ params[i]["W"].T + params[i]["b"])
        return jnp.sum((a - y) ** 2) / (2 * m)

    with jax.enable_x64(True):
        optimizer, expected = optax.sgd(lr, momentum or None), jax.tree.map(jnp.asarray, params)
        state = optimizer.init(expected)

        @jax.jit
        def step(params, state):
            E_before, grads = jax.value_and_grad(E)(params)
            updates, state = optimizer.update(grads, state)
            return optax.apply_updates(params, updates), state, E_before

        losses = []
        for _ in range(100):
            expected, state, E_before = step(expected, state)
            losses.append(float(E_before))
        assert_within(result.params, map_leaves(np.asarray, expected), bound=1000)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-12)
    assert losses[-1] < losses[0] / 2


def test_100_mini_batch_steps_by_hand_are_100_by_jax_grad(params, xy):
    x, y = xy
    result = fit(x, y, params=params, epochs=25, batch_size=3, shuffle=False)
    with jax.enable_x64(True):
        step = jax.jit(jax.grad(lambda p, x, y: MEAN.forward(NET.forward(p, x)[0], y)[0]))
        expected = jax.tree.map(jnp.asarray, params)
        for _ in range(25):
            for i in (0, 3, 6, 9):
                grads = step(expected, x[i : i + 3], y[i : i + 3])
                expected = jax.tree.map(lambda p, g: p - 0.5 * g, expected, grads)
        assert_within(result.params, map_leaves(np.asarray, expected), bound=1000)


def test_gradient_descent_makes_one_update_an_epoch_from_the_whole_sum(params, xy):
    _, grads = tn.value_and_grads(NET, SUM, params, *xy)
    expected, _ = tn.SGD(0.5).update(params, grads, ())
    assert_identical(fit(*xy, loss=SUM, params=params, epochs=1).params, expected)


@pytest.mark.parametrize("batch_size", [10, 11, 10**9])
def test_a_batch_as_large_as_the_data_is_gradient_descent(batch_size, params, xy):
    assert_identical(
        fit(*xy, params=params, batch_size=batch_size).params, fit(*xy, params=params, batch_size=None).params
    )


def test_single_sample_sgd_updates_once_a_sample(params, xy):
    expected = params
    for x, y in zip(*xy, strict=True):
        _, grads = tn.value_and_grads(NET, SUM, expected, x[None], y[None])
        expected, _ = tn.SGD(0.5).update(expected, grads, ())
    assert_identical(fit(*xy, loss=SUM, params=params, epochs=1, batch_size=1, shuffle=False).params, expected)


# the order of the samples


def batches(**options):
    seen = []
    x = np.arange(10.0)[:, None]
    tn.fit(count_samples(seen), SUM, x, x, optimizer=tn.SGD(0), **{"epochs": 2, "batch_size": 4} | options)
    return seen[1:]  # the first is the sample that `fit` tries the network on


def test_each_epoch_meets_every_sample_once_in_an_order_of_its_own():
    seen = batches()
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    first, second = ([*itertools.chain(*epoch)] for epoch in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert len({tuple(order) for order in (first, second, sorted(first))}) == 3


def test_the_seed_decides_the_order():
    assert batches(seed=1) == batches(seed=1)
    assert batches(seed=1) != batches(seed=2)


def test_without_shuffling_the_samples_stand_as_they_are():
    assert batches(shuffle=False) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] * 2


def test_samples_keep_their_targets():
    x = np.arange(10.0)[:, None]
    result = tn.fit(count_samples([]), SUM, x, x, optimizer=tn.SGD(0), epochs=3, batch_size=4)
    np.testing.assert_array_equal(result.history["loss"], 0)


# repeating, and leaving alone


def test_the_same_seed_gives_the_same_bits(xy):
    first, second = (fit(*xy, batch_size=3, seed=7, epochs=5) for _ in range(2))
    assert_identical(first.params, second.params)
    assert_identical(first.history["loss"], second.history["loss"])
    for a, b in zip(leaves(fit(*xy, batch_size=3, seed=8, epochs=5).params), leaves(first.params), strict=True):
        assert (a != b).all()


def test_without_parameters_it_starts_where_init_does(xy):
    start = NET.init(np.random.default_rng(5), np.float64)
    assert_identical(fit(*xy, seed=5, optimizer=tn.SGD(0)).params, start)
    assert_identical(fit(*xy, seed=5).params, fit(*xy, seed=5, params=start).params)


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nothing_handed_in_is_changed_or_handed_out(batch_size, momentum, params, xy):
    before = map_leaves(np.copy, (params, xy))
    for array in leaves((params, xy)):
        array.flags.writeable = False
    result = fit(
        *xy, params=params, batch_size=batch_size, optimizer=tn.SGD(0.5, momentum), validation=xy, metrics={"E": _mse}
    )
    assert_identical((params, xy), before)
    assert not any(np.shares_memory(p, a) for p in leaves(result.params) for a in leaves((params, xy)))


def test_it_neither_reads_nor_moves_numpys_global_random_state(xy):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = fit(*xy, batch_size=3).params
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert_identical(fit(*xy, batch_size=3).params, first)


@pytest.mark.parametrize(("of_params", "of_data"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_data_are_rounded_to_the_dtype_of_the_parameters(of_params, of_data, xy):
    params = random_params(NET, np.random.default_rng(0), of_params)
    x, y = (a.astype(of_data) for a in xy)
    result = fit(x, y, params=params)
    assert {p.dtype for p in leaves(result.params)} == {np.dtype(of_params)}
    assert_identical(result.params, fit(x.astype(of_params), y.astype(of_params), params=params).params)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_it_draws_have_the_dtype_of_the_data(dtype, xy):
    result = fit(*(a.astype(dtype) for a in xy))
    assert {p.dtype for p in leaves(result.params)} == {np.dtype(dtype)}


def test_layouts_make_no_difference(params, xy):
    x, y = xy
    strided = np.repeat(x, 2, axis=1)[:, ::2], np.asfortranarray(y)
    assert_within(fit(*strided, params=params, batch_size=3).params, fit(x, y, params=params, batch_size=3).params)


def test_lists_are_arrays_too(params, xy):
    assert_identical(fit(*map(np.ndarray.tolist, xy), params=params).params, fit(*xy, params=params).params)


# what it records


def _mse(y_hat, y):
    return float(np.mean((y_hat - y) ** 2))


def test_the_loss_of_gradient_descent_is_that_before_each_update(params, xy):
    result = fit(*xy, params=params, epochs=4)
    expected = [error(params, *xy), *(error(fit(*xy, params=params, epochs=n).params, *xy) for n in (1, 2, 3))]
    np.testing.assert_array_equal(result.history["loss"], expected)


@pytest.mark.parametrize("loss", [SUM, MEAN], ids=["sum", "mean"])
def test_the_loss_of_an_epoch_joins_its_batches_as_the_loss_joins_samples(loss, params, xy):
    """With a learning rate of 0 every batch meets the same parameters: 3 + 3 + 3 + 1 samples are all of them."""
    result = fit(*xy, loss=loss, params=params, batch_size=3, optimizer=tn.SGD(0), epochs=2)
    np.testing.assert_allclose(result.history["loss"], error(params, *xy, loss), rtol=1e-14)


def test_metrics_and_validation_are_taken_after_each_epoch(params, xy):
    x, y = xy
    train, held_out = (x[:7], y[:7]), (x[7:], y[7:])
    result = fit(*train, params=params, epochs=3, batch_size=2, validation=held_out, metrics={"mse": _mse})
    assert set(result.history) == {"loss", "mse", "validation_loss", "validation_mse", "seconds"}
    assert all(values.shape == (3,) and values.dtype == np.float64 for values in result.history.values())
    assert result.history["mse"][-1] == _mse(NET.forward(result.params, train[0])[0], train[1])
    assert result.history["validation_mse"][-1] == _mse(NET.forward(result.params, held_out[0])[0], held_out[1])
    assert result.history["validation_loss"][-1] == error(result.params, *held_out)


def test_seconds_grow(xy):
    seconds = fit(*xy, epochs=5).history["seconds"]
    assert seconds[0] > 0
    assert (np.diff(seconds) >= 0).all()


def test_watching_changes_no_parameter_and_no_loss(params, xy):
    watched = fit(*xy, params=params, batch_size=3, validation=xy, metrics={"mse": _mse})
    unwatched = fit(*xy, params=params, batch_size=3)
    assert_identical(watched.params, unwatched.params)
    np.testing.assert_array_equal(watched.history["loss"], unwatched.history["loss"])


def test_without_metrics_there_are_a_loss_and_a_time(xy):
    assert set(fit(*xy).history) == {"loss", "seconds"}


def test_the_progress_bar_goes_to_stderr_and_changes_nothing(capsys, params, xy):
    quiet = fit(*xy, params=params)
    assert capsys.readouterr() == ("", "")
    assert_identical(fit(*xy, params=params, progress=True).params, quiet.params)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err
    assert "loss" in err


# when it stops


def test_it_stops_after_the_first_epoch_within_the_tolerance(params, xy):
    whole = fit(*xy, params=params, epochs=20)
    losses = whole.history["loss"]
    assert (np.diff(losses) < 0).all()
    result = fit(*xy, params=params, epochs=20, tolerance=losses[6])
    assert (whole.stopped, result.stopped) == ("epochs", "tolerance")
    np.testing.assert_array_equal(result.history["loss"], losses[:7])
    assert_identical(result.params, fit(*xy, params=params, epochs=7).params)


def test_it_learns_xor():
    x, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
    net = sigmoid_network(2, 4, 1)
    result = tn.fit(net, SUM, x, y, optimizer=tn.SGD(2.0), epochs=5000, tolerance=0.01)
    assert result.stopped == "tolerance"
    np.testing.assert_array_equal(net.forward(result.params, x)[0].round(), y)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_loss_that_is_not_finite_stops_it_and_the_last_finite_parameters_are_kept(momentum):
    """E = ½ Σ (w x − y)² with η far too large: the steps grow without end."""
    net, optimizer = tn.Linear(1, 1), tn.SGD(50.0, momentum)
    x = np.random.default_rng(0).normal(size=(10, 1)).astype(np.float32)
    y = 3 * x
    start = {"W": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    with pytest.raises(tn.DivergenceError, match=r"fit: the loss became (inf|nan) at epoch \d+, batch \d; the la") as e:
        tn.fit(net, SUM, x, y, params=start, optimizer=optimizer, epochs=100, batch_size=3, shuffle=False)
    epoch, batch, kept = e.value.epoch, e.value.batch, e.value.params
    assert f"at epoch {epoch}, batch {batch};" in str(e.value)
    assert isinstance(e.value, ArithmeticError)
    assert batch > 1
    assert all(np.isfinite(p).all() for p in leaves(kept))

    def at(params, step):
        rows = slice(3 * (step % 4), 3 * (step % 4) + 3)
        return tn.value_and_grads(net, SUM, params, x[rows], y[rows])

    params, state, steps = start, optimizer.init(start), 4 * epoch + batch
    for step in range(steps):
        E, grads = at(params, step)
        assert np.isfinite(E)
        params, state = optimizer.update(params, grads, state)
    for got, expected in zip(leaves(kept), leaves(params), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4)  # fit may fold η into the error, in float32
    assert not np.isfinite(at(params, steps)[0])


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_loss_that_overflows_once_stops_it_even_where_its_gradient_does_not():
    x, y = np.ones((6, 1)), np.array([[0.0], [0], [1e200], [0], [0], [0]])
    with pytest.raises(tn.DivergenceError, match="the loss became inf at epoch 0, batch 1"):
        tn.fit(tn.Linear(1, 1), SUM, x, y, optimizer=tn.SGD(1e-200), epochs=2, batch_size=2, shuffle=False)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_update_that_is_not_finite_stops_it_too(momentum):
    x, y = np.ones((4, 1)), np.full((4, 1), 1e150)
    start = {"W": np.ones((1, 1)), "b": np.zeros(1)}
    with pytest.raises(tn.DivergenceError, match="a parameter became infinite or NaN in the update at epoch 0") as e:
        tn.fit(tn.Linear(1, 1), SUM, x, y, params=start, optimizer=tn.SGD(1e200, momentum), epochs=3)
    assert (e.value.epoch, e.value.batch) == (0, 0)
    assert_identical(e.value.params, start)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_the_parameters_of_a_divergence_in_a_later_shuffled_epoch_are_those_of_a_shorter_training():
    x = np.random.default_rng(0).normal(size=(9, 1))
    options = {"optimizer": tn.SGD(5.0, 0.5), "batch_size": 3, "seed": 4}
    with pytest.raises(tn.DivergenceError) as e:
        tn.fit(tn.Linear(1, 1), SUM, x, 2 * x + 1, epochs=10_000, **options)
    assert e.value.epoch > 3
    before = tn.fit(tn.Linear(1, 1), SUM, x, 2 * x + 1, epochs=e.value.epoch, **options)
    if e.value.batch == 0:
        assert_identical(e.value.params, before.params)
    else:
        assert all(np.isfinite(p).all() for p in leaves(e.value.params))
    assert math.isfinite(before.history["loss"][-1])


# what it refuses


def bad(**changes):
    """Arguments of `fit`, one of them bad."""
    x, y = np.zeros((6, 4)), np.zeros((6, 2))
    good = {"net": NET, "loss": MEAN, "x": x, "y": y, "optimizer": tn.SGD(0.1), "epochs": 1}
    return good | changes


def with_nan(shape, value=np.nan):
    a = np.zeros(shape)
    a[3, 1] = value
    return a


FLOAT64 = NET.init(np.random.default_rng(0), np.float64)
MIXED = (FLOAT64[0], {}, NET.init(np.random.default_rng(0))[2], {})


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        (
            bad(x=np.zeros((6, 3))),
            ValueError,
            r"Linear\(n_in=4, n_out=3\): x has shape \(1, 3\); expected \(\.\.\., 4\)",
        ),
        (bad(x=np.zeros((5, 4))), ValueError, "fit: y has 6 samples; expected 5, as many as x"),
        (
            bad(y=np.zeros((6, 3))),
            ValueError,
            r"fit: the data do not fit the network's output: .*y has shape \(6, 3\); expected \(6, 2\), that of y_hat",
        ),
        (bad(y=np.zeros(6)), ValueError, r"fit: .*y has shape \(6,\); expected \(6, 2\)"),
        (bad(y=np.zeros((6, 1))), ValueError, r"fit: .*y has shape \(6, 1\); expected \(6, 2\)"),
        (
            bad(net=sigmoid_network(4, 1), y=np.zeros(6)),
            ValueError,
            r"fit: .*y has shape \(6,\); expected \(6, 1\), that of y_hat; use y.reshape\(\(6, 1\)\)",
        ),
        (bad(x=np.zeros((6, 4), int)), TypeError, "x has dtype int64; expected floating point; use x.astype"),
        (bad(y=np.zeros((6, 2), int)), TypeError, "y has dtype int64; expected floating point; use y.astype"),
        (
            bad(x=np.zeros((6, 4), object)),
            TypeError,
            "fit: x has dtype object; expected real numbers; use numpy.asarray",
        ),
        (bad(y=np.zeros((6, 2), object)), TypeError, "fit: y has dtype object; expected real numbers"),
        (bad(x=np.zeros((6, 4), complex)), TypeError, "fit: x has dtype complex128; expected real numbers"),
        (bad(x=np.full((6, 4), "1")), TypeError, "fit: x has dtype <U1; expected real numbers"),
        (bad(x=np.zeros((6, 4), bool)), TypeError, "x has dtype bool; expected floating point"),
        (
            bad(y=np.zeros(6, int)),
            TypeError,
            r"y has dtype int64.*for classes use numpy.eye\(2\)\[y\]",
        ),
        (bad(x=None), TypeError, "fit: x is None, which holds no array"),
        (
            bad(x=with_nan((6, 4))),
            ValueError,
            "fit: x has a value that is NaN or infinite, first in row 3; expected fin",
        ),
        (bad(y=with_nan((6, 2), -np.inf)), ValueError, "fit: y has a value that is NaN or infinite, first in row 3"),
        (
            bad(x=np.zeros((0, 4)), y=np.zeros((0, 2))),
            ValueError,
            r"fit: x has shape \(0, 4\); expected at least one sam",
        ),
        (bad(x=np.float64(1)), ValueError, r"fit: x has shape \(\); expected \(m, …\), one row per sample"),
        (bad(batch_size=0), ValueError, "fit: batch_size is 0; expected at least 1"),
        (bad(batch_size=-1), ValueError, "fit: batch_size is -1; expected at least 1"),
        (bad(batch_size=2.0), TypeError, "fit: batch_size is 2.0; expected an int"),
        (bad(epochs=0), ValueError, "fit: epochs is 0; expected at least 1"),
        (bad(epochs=1.5), TypeError, "fit: epochs is 1.5; expected an int"),
        (bad(engine="cuda"), ValueError, "fit: engine is 'cuda'; expected"),
        (bad(net=tn.Sigmoid), TypeError, "fit: net is the class Sigmoid; expected an instance of tinynet.Layer"),
        (bad(net=MEAN), TypeError, "fit: net is SquaredError; expected an instance of tinynet.Layer"),
        (bad(loss=None), TypeError, "fit: loss is None; expected an instance of tinynet.Loss"),
        (bad(optimizer=0.1), TypeError, "fit: optimizer is float; expected an instance of tinynet.Optimizer"),
        (bad(params=()), ValueError, "fit: params has 0 entries; expected 4, as the network has"),
        (bad(params={}), TypeError, r"fit: params is a dict with keys \[\]; expected a tuple of 4"),
        (bad(params=({}, {}, {}, {})), ValueError, r"params\[0\] is a dict with keys \[\]; expected a dict with keys"),
        (
            bad(params=sigmoid_network(4, 2, 2).init(np.random.default_rng(0))),
            ValueError,
            r'params\[0\]\["W"\] has shape',
        ),
        (
            bad(params=MIXED),
            TypeError,
            r"fit: params\[0\]\[\"W\"\] has dtype float64; expected one floating-point dtype",
        ),
        (bad(params=map_leaves(lambda p: p.astype(int), FLOAT64)), TypeError, "has dtype int64; expected one floating"),
        (
            bad(params=map_leaves(lambda p: p * np.nan, FLOAT64)),
            ValueError,
            r'params\[0\]\["W"\] has a value that is NaN',
        ),
        (
            bad(validation=(np.zeros((2, 4)), np.zeros(2))),
            ValueError,
            r"the validation data do not fit .*y has shape \(2,\); expected \(2, 2\)",
        ),
        (
            bad(validation=(np.zeros((2, 4)), np.zeros((3, 2)))),
            ValueError,
            r"validation\[1\] has 3 samples; expected 2",
        ),
        (bad(validation=(np.zeros((0, 4)), np.zeros((0, 2)))), ValueError, r"validation\[0\] has shape \(0, 4\)"),
        (bad(validation=(with_nan((6, 4)), np.zeros((6, 2)))), ValueError, r"validation\[0\] has a value that is NaN"),
        (
            bad(validation=(np.zeros((2, 3)), np.zeros((2, 2)))),
            ValueError,
            r"x has shape \(1, 3\); expected \(\.\.\., 4\)",
        ),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_trained(arguments, exception, message):
    with pytest.raises(exception, match=message):
        tn.fit(**arguments)
