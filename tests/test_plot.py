"""Each picture shows the numbers it is given; matplotlib is imported only for it."""

import io
import subprocess
import sys

import numpy as np
import pytest

import tinynet as tn
from tinynet.pages import examples

RNG = np.random.default_rng(0)


def rendered(figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


def test_import_tinynet_imports_neither_matplotlib_nor_jax():
    code = "import tinynet, sys; assert not {'matplotlib', 'jax', 'scipy', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match=r"module 'tinynet' has no attribute 'plots'"):
        tn.plots  # noqa: B018


def test_learning_curves_draw_training_beside_validation():
    history = {
        "loss": np.array([1.0, 0.1, 0.01]),
        "validation_loss": np.array([1.0, 0.2, 0.1]),
        "accuracy": np.array([0.5, 0.8, 0.9]),
        "seconds": np.arange(3.0),
    }
    figure = tn.plot.learning_curves(history)
    loss, accuracy = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    np.testing.assert_array_equal(
        [line.get_ydata() for line in loss.lines[:2]], [history["loss"], history["validation_loss"]]
    )
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    assert rendered(figure)
    with pytest.raises(ValueError, match=r"expected a loss or a metric"):
        tn.plot.learning_curves({"seconds": np.ones(3)})


def test_learning_curves_of_several_runs_are_a_mean_and_a_band_by_group():
    x, y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
    options = {"optimizer": tn.SGD(0.1), "epochs": 4, "validation": (x, y)}
    sweep = tn.sweep(tn.Linear(3, 2), tn.SquaredError(), x, y, seeds=range(3), grid={"lr": [0.001, 0.01]}, **options)
    figure = tn.plot.learning_curves(sweep)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "validation_loss"]
    axes = figure.axes[0]
    assert [line.get_label() for line in axes.lines] == ["lr=0.001", "lr=0.01"]
    for line, band, runs in zip(axes.lines, axes.collections, (sweep.results[:3], sweep.results[3:]), strict=True):
        losses = np.array([run.history["loss"] for run in runs])
        np.testing.assert_allclose(line.get_ydata(), losses.mean(axis=0))
        corners = band.get_paths()[0].vertices
        for epoch in range(4):
            ends = corners[corners[:, 0] == epoch + 1, 1]
            np.testing.assert_allclose([ends.min(), ends.max()], [losses[:, epoch].min(), losses[:, epoch].max()])
    assert rendered(figure)
    first, second, *_ = sweep.results
    for several, lines in (([first, second], 1), ({"one": first, "both": (first, second)}, 2)):
        figure = tn.plot.learning_curves(several)
        assert len(figure.axes[0].lines) == lines
        assert rendered(figure)
    with pytest.raises(ValueError, match="learning_curves: result is an empty list; expected at least one run"):
        tn.plot.learning_curves([])


def test_learning_curves_of_runs_that_ended_early_go_on_with_the_others():
    runs = [{"loss": np.array([4.0, 2.0, np.nan])}, {"loss": np.array([2.0])}, {"loss": np.array([3.0, 1.0, 0.0])}]
    (axes,) = tn.plot.learning_curves({"a": runs, "b": runs[1]}).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [3, 1.5, 0])
    assert list(axes.lines[1].get_ydata()) == [2]


@pytest.mark.parametrize("several", [False, True])
def test_learning_curves_without_a_finite_number_are_empty(several):
    run = {"loss": np.full(3, np.nan)}
    (axes,) = tn.plot.learning_curves([run, run] if several else run).axes
    assert axes.get_yscale() == "linear"
    assert np.ma.masked_invalid(axes.lines[0].get_ydata()).count() == 0


def test_learning_curves_take_a_result_count_epochs_in_integers_and_mark_the_best():
    history = {"loss": np.array([3.0, 2.0, 1.0]), "validation_loss": np.array([3.0, 1.0, 2.0])}
    (axes,) = tn.plot.learning_curves(history).axes
    assert list(axes.lines[2].get_xdata()) == [2, 2]
    assert axes.lines[2].get_label() == "best: epoch 2"
    assert all(tick == int(tick) for tick in axes.get_xticks())
    x = np.eye(2)
    result = tn.fit(tn.Linear(2, 2), tn.SquaredError(), x, x, optimizer=tn.SGD(0.1), epochs=3)
    (axes,) = tn.plot.learning_curves(result).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), result.history["loss"])
    assert len(axes.lines) == 1, "without validation no epoch is the best"


def test_network_draws_each_activation_and_weight():
    trace = tn.trace(*examples.mazur())
    (axes,) = tn.plot.network(trace).axes
    texts = [text.get_text() for text in axes.texts]
    for name in ("a0", "a1", "a2"):
        assert texts.count(name) == 1
        assert {f"{value:.3g}" for value in trace[name][0]} <= set(texts)
    assert {f"{w:.3g}" for w in (*trace["W1"].flat, *trace["W2"].flat)} <= set(texts)
    assert len(axes.lines) == 8
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 6
    net = tn.Sequential(tn.Linear(20, 3))
    wide = tn.trace(net, tn.SquaredError(), net.init(RNG, np.float64), np.ones((1, 20)), np.ones((1, 3)))
    (axes,) = tn.plot.network(wide).axes
    assert len(axes.lines) == 11 * 3
    assert "⋮\n20 units" in [text.get_text() for text in axes.texts]
    norm = tn.Sequential(tn.LayerNorm(2))
    with pytest.raises(ValueError, match=r"network: z¹ = LayerNorm\(a⁰\) is no dense layer"):
        tn.plot.network(tn.trace(norm, tn.SquaredError(), norm.init(RNG, float), np.ones((1, 2)), np.ones((1, 2))))


@pytest.mark.parametrize("one_hot", [True, False])
def test_confusion_counts_true_classes_by_rows(one_hot):
    from sklearn.metrics import confusion_matrix

    true, predicted = RNG.integers(0, 4, 50), RNG.integers(0, 4, 50)
    given = (np.eye(4)[predicted], np.eye(4)[true]) if one_hot else (predicted, true)
    (axes,) = tn.plot.confusion(*given, labels="abcd").axes
    counts = np.zeros((4, 4), int)
    for text in axes.texts:
        j, i = text.get_position()
        counts[i, j] = int(text.get_text())
    np.testing.assert_array_equal(counts, confusion_matrix(true, predicted))
    assert axes.get_title() == f"{(true == predicted).sum()} of 50 right ({np.mean(true == predicted):.1%})"
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abcd")


def test_confusion_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\); expected"):
        tn.plot.confusion(np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"labels has 1 entries; expected 2, one per class"):
        tn.plot.confusion(np.array([0, 1]), np.array([0, 1]), labels="a")


def test_confusion_of_one_output_asks_which_side_is_which_class():
    """The largest of one output is always the first: all samples would be right."""
    y_hat, y = np.array([[0.2], [0.9]]), np.array([[1.0], [0.0]])
    for given in ((y_hat, y), (y_hat[:, 0] > 0.5, y), (y_hat, y[:, 0])):
        with pytest.raises(ValueError, match=r"for one output give the classes, \(y_hat\[:, 0\] > 0\.5\)"):
            tn.plot.confusion(*given)
    assert tn.plot.confusion(y_hat[:, 0] > 0.5, y[:, 0]).axes[0].get_title() == "0 of 2 right (0.0%)"


def test_a_figure_shows_itself_in_a_notebook():
    figure = tn.plot.learning_curves({"loss": np.ones(3)})
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_two_kinds_of_target_have_two_markers_and_the_border_between_them():
    x = RNG.normal(size=(30, 2))
    y = (x[:, :1] > 0).astype(float)
    net = tn.Sequential(tn.Linear(2, 1), tn.Sigmoid())
    figure = tn.plot.decision_surface(net, ({"W": np.array([[4.0, 0.0]]), "b": np.zeros(1)}, {}), x, y, points=40)
    border, *dots = figure.axes[0].collections
    np.testing.assert_allclose(np.concatenate([path.vertices for path in border.get_paths()])[:, 0], 0, atol=1e-3)
    assert [d.get_label() for d in dots] == ["y = 0.0", "y = 1.0"]
    assert [len(d.get_offsets()) for d in dots] == [(y == 0).sum(), (y == 1).sum()]


@pytest.mark.parametrize("outputs", [1, 3])
def test_decision_surface_takes_labels_as_it_takes_columns(outputs):
    labels = np.arange(30) % max(outputs, 2)
    columns = labels[:, None].astype(float) if outputs == 1 else np.eye(3)[labels]
    net, x = tn.Linear(2, outputs), RNG.normal(size=(30, 2))
    params = net.init(RNG, np.float64)
    one, other = (tn.plot.decision_surface(net, params, x, y, points=20).axes[0] for y in (labels, columns))
    assert len(one.collections) == len(other.collections)
    for a, b in zip(one.collections[-2:], other.collections[-2:], strict=True):
        np.testing.assert_array_equal(a.get_offsets(), b.get_offsets())


def test_weights_draw_an_image_a_unit_on_one_scale():
    W = RNG.normal(size=(7, 12))
    figure = tn.plot.weights(W, shape=(3, 4))
    images = [axes.images[0] for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(np.stack([image.get_array() for image in images]), W.reshape(7, 3, 4))
    assert {image.get_clim() for image in images} == {(-np.abs(W).max(), np.abs(W).max())}
    assert rendered(figure)
    assert len([axes for axes in tn.plot.weights(RNG.normal(size=(3, 2, 5, 5))).axes if axes.images]) == 6
    assert rendered(tn.plot.weights(np.zeros((1, 4))))
    with pytest.raises(ValueError, match=r"W has shape \(7, 12\); expected n_in = 3 · 3; use shape="):
        tn.plot.weights(W)
    with pytest.raises(ValueError, match=r"expected \(n_out, n_in\) or"):
        tn.plot.weights(W[0])


def test_layers_over_time_show_vanishing_sigmoid_gradients():
    layers = [layer for _ in range(4) for layer in (tn.Linear(8, 8), tn.Sigmoid())]
    net = tn.Sequential(*layers)
    params, x = net.init(RNG, np.float64), RNG.normal(size=(16, 8))
    trace = tn.trace(net, tn.SquaredError("mean"), params, x, np.ones((16, 8)))
    figure = tn.plot.layers_over_time([trace, trace], steps=[0, 10])
    activations, gradients = figure.axes
    assert [line.get_label() for line in activations.lines] == ["a1", "a2", "a3", "a4"]
    assert [line.get_label() for line in gradients.lines] == ["dW1", "dW2", "dW3", "dW4"]
    sizes = [line.get_ydata()[0] for line in gradients.lines]
    np.testing.assert_allclose(sizes[0], np.sqrt(np.mean(trace["dW1"] ** 2)))
    assert sizes == sorted(sizes)
    assert gradients.get_yscale() == "log"
    assert rendered(figure)
    with pytest.raises(ValueError, match=r"steps has 3 entries; expected 1, one per trace"):
        tn.plot.layers_over_time([trace], steps=[1, 2, 3])
    with pytest.raises(ValueError, match=r"traces has 0 of them"):
        tn.plot.layers_over_time([])


@pytest.mark.parametrize("outputs", [1, 3])
def test_decision_surface_draws_the_network_all_over_the_plane(outputs):
    net = tn.Linear(2, outputs)
    params, x = net.init(RNG, np.float64), RNG.normal(size=(30, 2))
    y = np.eye(3)[np.arange(30) % 3] if outputs == 3 else x[:, :1]
    figure = tn.plot.decision_surface(net, params, x, y, points=20)
    image = figure.axes[0].images[0]
    left, right, bottom, _ = image.get_extent()
    assert left < x[:, 0].min() < x[:, 0].max() < right
    if outputs == 1:
        corner, _ = net.forward(params, np.array([[left, bottom]]))
        np.testing.assert_allclose(image.get_array()[0, 0], corner[0, 0])
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == 30
    assert rendered(figure)
    with pytest.raises(ValueError, match=r"expected \(m, 2\) and \(m, K\)"):
        tn.plot.decision_surface(net, params, x[:, :1], y)
