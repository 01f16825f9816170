"""The scikit-learn estimators: its own checks, and the work people do with estimators."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine, make_moons
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import tinynet as tn
from tinynet.sklearn import Classifier, Regressor


@parametrize_with_checks([Classifier(), Regressor()])
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def test_the_digits_are_learnt_in_a_pipeline_under_cross_validation(digits):
    pipeline = make_pipeline(StandardScaler(), Classifier(epochs=20, random_state=0))
    assert cross_val_score(pipeline, *digits, cv=3).mean() >= 0.92


def test_a_grid_search_finds_that_a_learning_rate_of_0_learns_nothing():
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = y.map(dict(enumerate(("setosa", "versicolor", "virginica"))))
    pipeline = make_pipeline(StandardScaler(), Classifier(epochs=30, random_state=0))
    grid = {"classifier__lr": [0.0, 1.0], "classifier__hidden_sizes": [(), (8,), (8, 8)]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, names)
    assert search.best_params_["classifier__lr"] == 1.0
    assert search.best_score_ >= 0.9
    assert set(search.predict(X)) == {"setosa", "versicolor", "virginica"}


def test_a_regression_explains_the_diabetes_data_about_as_well_as_a_linear_one():
    X, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), Regressor(random_state=0, epochs=30, lr=0.005))
    assert cross_val_score(pipeline, X, (y - y.mean()) / y.std(), cv=3).mean() >= 0.4


@pytest.mark.parametrize(("kind", "target"), [(Classifier, "y"), (Regressor, "Y")])
def test_five_partial_fits_equal_one_fit_of_five_epochs(digits, kind, target):
    X, y = digits[0][:200], digits[1][:200]
    y = y if target == "y" else np.c_[y, y**2] / 10
    options = {"shuffle": False, "momentum": 0.9, "lr": 0.01, "random_state": 3, "batch_size": 32}
    whole, parts = kind(epochs=5, **options).fit(X, y), kind(**options)
    for call in range(5):
        parts.partial_fit(X, y, *([np.arange(10)] if kind is Classifier and call == 0 else []))
    for a, b in zip(whole.params_[::2], parts.params_[::2], strict=True):
        np.testing.assert_allclose(a["W"], b["W"], rtol=1e-12)
    np.testing.assert_allclose(whole.loss_curve_, parts.loss_curve_, rtol=1e-12)
    assert whole.n_iter_ == parts.n_iter_ == 5


def test_partial_fit_goes_on_from_fit_and_learns_classes_that_come_late(digits):
    X, y = digits
    model = Classifier(random_state=0)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        model.partial_fit(X, y)
    model.partial_fit(X[y < 5], y[y < 5], classes=range(10))
    for _ in range(10):
        model.partial_fit(X, y)
    assert model.score(X, y) >= 0.95
    with pytest.raises(ValueError, match=r"y has the class 11; expected one of \[0, 1"):
        model.partial_fit(X[:1], [11])
    with pytest.raises(ValueError, match="the first call was given"):
        model.partial_fit(X, y, classes=[1, 2])
    fitted = Classifier(epochs=2, random_state=0).fit(X, y)
    before = fitted.loss_curve_[-1]
    assert fitted.partial_fit(X, y).loss_curve_[-1] < before
    assert fitted.n_iter_ == 3


def test_probabilities_add_up_to_1_even_where_every_unit_is_saturated(digits):
    model = Classifier(epochs=3, random_state=0).fit(*digits)
    np.testing.assert_allclose(model.predict_proba(digits[0]).sum(axis=1), 1)
    assert np.array_equal(model.classes_[model.predict_proba(digits[0]).argmax(axis=1)], model.predict(digits[0]))
    model.params_[2]["b"][:] = -1e4
    assert np.all(model.predict_proba(digits[0][:3]) == 0.1)


def test_the_dtype_of_the_data_is_that_of_the_network(digits):
    for dtype in (np.float32, np.float64):
        model = Classifier(epochs=1, random_state=0).fit(digits[0].astype(dtype), digits[1])
        assert model.params_[0]["W"].dtype == dtype
        assert model.predict_proba(digits[0]).dtype == dtype


def test_a_column_of_targets_is_taken_with_a_warning(digits):
    for model in (Classifier(epochs=1), Regressor(epochs=1, lr=1e-4)):
        with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
            model.fit(digits[0], digits[1][:, None])
        assert model.predict(digits[0]).shape == digits[1].shape


def test_feature_names_are_kept_and_compared():
    X = pd.DataFrame({"length": [0.0, 1.0, 2.0], "width": [1.0, 0.0, 1.0]})
    model = Regressor(epochs=1).fit(X, [0.0, 1.0, 2.0])
    assert model.feature_names_in_.tolist() == ["length", "width"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[["width", "length"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X.to_numpy())


def test_the_network_is_an_ordinary_one_to_save(tmp_path, digits):
    model = Classifier(epochs=1, random_state=0).fit(*digits)
    tn.save(tmp_path / "net", model.net_, model.params_, extra={"classes": model.classes_})
    net, params = tn.load(tmp_path / "net")
    assert np.array_equal(net.forward(params, digits[0])[0].argmax(axis=1), model.predict(digits[0]))


def test_bad_arguments_are_named(digits):
    with pytest.raises(NotFittedError):
        Classifier().predict(digits[0])
    for options, error, message in [
        ({"hidden_sizes": 30}, TypeError, r"Classifier: hidden_sizes is 30; expected one int per layer, as \(30,\)"),
        ({"hidden_sizes": (0,)}, ValueError, "Linear: n_out is 0; expected at least 1"),
        ({"epochs": 0}, ValueError, "epochs is 0; expected at least 1"),
        ({"lr": -1}, ValueError, "SGD: lr is -1; expected"),
        ({"batch_size": 0}, ValueError, "batch_size is 0; expected at least 1"),
    ]:
        with pytest.raises(error, match=message):
            Classifier(**options).fit(*digits)
    with pytest.raises(ValueError, match="fit: batch_size is 0; expected at least 1"):
        Regressor(batch_size=0).partial_fit(*digits)
    with pytest.raises(tn.DivergenceError, match="became"), np.errstate(all="ignore"):
        Regressor(lr=1e6).partial_fit(*digits)


BY_SCIKIT_LEARN = {"hidden_layer_sizes": (50,), "activation": "relu", "solver": "adam", "random_state": 0}
BY_SCIKIT_LEARN |= {"alpha": 1e-3, "learning_rate_init": 0.01, "batch_size": 50}
FIVE = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
    "moons": lambda return_X_y: make_moons(1000, noise=0.2, random_state=0),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", FIVE)
def test_with_the_settings_of_mlp_it_is_as_good_as_mlp(name):
    X, y = FIVE[name](return_X_y=True)
    X = StandardScaler().fit_transform(X)
    mine = Classifier(loss="log_loss", max_iter=50, **BY_SCIKIT_LEARN)
    theirs = MLPClassifier(max_iter=50, **BY_SCIKIT_LEARN)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    scores = [cross_val_score(model, X, y, cv=folds).mean() for model in (mine, theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_coefs_and_intercepts_make_mlp_give_the_same_probabilities(activation, digits):
    X, y = digits
    settings = {"hidden_layer_sizes": (12, 7), "activation": activation, "max_iter": 2, "random_state": 0}
    mine = Classifier(loss="cross_entropy", solver="adam", **settings).fit(X, y)
    theirs = MLPClassifier(**settings)
    theirs.partial_fit(X, y, classes=np.unique(y))
    theirs.coefs_, theirs.intercepts_ = mine.coefs_, mine.intercepts_
    np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    assert (mine.n_layers_, mine.n_outputs_) == (theirs.n_layers_, theirs.n_outputs_)
    assert (mine.loss_, mine.best_loss_) == (mine.loss_curve_[-1], min(mine.loss_curve_))


def test_alpha_is_the_penalty_of_scikit_learn():
    """One step of gradient descent on all samples, W − η (∂E/∂W + α W / m), against `tinynet.value_and_grads`."""
    X, y = load_iris(return_X_y=True)
    model = Classifier((4,), alpha=3.0, lr=0.5, epochs=1, batch_size=None, random_state=0)
    start = Classifier((4,), lr=0.0, epochs=1, batch_size=None, random_state=0).fit(X, y)
    _, grads = tn.value_and_grads(start.net_, tn.SquaredError("mean"), start.params_, X, np.eye(3)[y])
    after = model.fit(X, y).params_
    for p, g, stepped in zip(start.params_[::2], grads[::2], after[::2], strict=True):
        np.testing.assert_allclose(stepped["W"], p["W"] - 0.5 * (g["W"] + 3.0 * p["W"] / 150), rtol=1e-10)
        np.testing.assert_allclose(stepped["b"], p["b"] - 0.5 * g["b"], rtol=1e-10)


@pytest.mark.parametrize("solver", ["sgd", "nesterov", "adam", "adamw", tn.ClipByGlobalNorm(tn.Adam(0.01), 1.0)])
def test_every_solver_learns(solver):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = Classifier((8,), loss="cross_entropy", solver=solver, lr=0.1, epochs=30, random_state=0)
    assert model.fit(X, y).score(X, y) >= 0.9


def test_early_stopping_keeps_the_best_on_what_it_holds_out():
    X, y = load_iris(return_X_y=True)
    model = Classifier((8,), epochs=500, early_stopping=True, validation_fraction=0.2, n_iter_no_change=5)
    model.set_params(random_state=0).fit(StandardScaler().fit_transform(X), y)
    assert model.n_iter_ == len(model.validation_scores_) < 500
    best = int(np.argmax(model.validation_scores_))
    assert model.n_iter_ - 1 - best >= 5
    assert model.best_validation_score_ == model.validation_scores_[best] >= 0.9


def test_warm_start_goes_on_and_a_cold_one_begins_again(capsys):
    X, y = load_iris(return_X_y=True)
    warm = Classifier(epochs=3, warm_start=True, random_state=0, verbose=True, shuffle=False)
    once = Classifier(epochs=6, random_state=0, shuffle=False).fit(X, y)
    warm.fit(X, y).fit(X, y)
    np.testing.assert_allclose(warm.loss_curve_, once.loss_curve_, rtol=1e-12)
    shown = [line.split(", loss = ") for line in capsys.readouterr().out.splitlines()]
    assert [label for label, _ in shown] == [f"Iteration {i}" for i in range(1, 7)]
    np.testing.assert_allclose([float(loss) for _, loss in shown], warm.loss_curve_, atol=1e-8)
    with pytest.raises(ValueError, match="with warm_start expected"):
        warm.fit(X[:100], y[:100])
    assert Classifier(epochs=2, random_state=0).fit(X, y).fit(X, y).n_iter_ == 2


def test_weights_of_samples_and_classes_are_repetitions():
    X, y = load_iris(return_X_y=True)
    options = {"epochs": 20, "batch_size": None, "random_state": 0}
    repeated = np.r_[np.arange(150), np.flatnonzero(y == 1), np.flatnonzero(y == 1)]
    expected = Classifier(**options).fit(X[repeated], y[repeated]).params_[0]["W"]
    weights = np.where(y == 1, 3.0, 1.0)
    for model in (
        Classifier(**options).fit(X, y, sample_weight=weights),
        Classifier(**options).fit(X, y, sample_weight=7 * weights),
        Classifier(class_weight={1: 3}, **options).fit(X, y),
    ):
        np.testing.assert_allclose(model.params_[0]["W"], expected, rtol=1e-8)
    with pytest.raises(ValueError, match="at least one non-zero"):
        Regressor(**options).fit(X, y, sample_weight=0 * weights)


def test_a_training_on_unscaled_data_that_learned_nothing_says_so():
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.warns(tn.NoHeadwayWarning, match="Scale the inputs"):
        Classifier(epochs=10, random_state=0).fit(X, y)


@pytest.mark.parametrize(
    ("options", "y", "error"), [({"lr": 1e200}, 0.0, tn.DivergenceError), ({"lr": -1.0}, 0.0, ValueError)]
)
def test_a_refused_first_partial_fit_leaves_nothing_behind(options, y, error):
    X = np.random.default_rng(0).normal(size=(60, 3))
    before = dict(vars(Regressor(**options)))
    model = Regressor(**options)
    with pytest.raises(error), np.errstate(all="ignore"):
        model.partial_fit(X, X[:, 0] + y)
    assert vars(model) == before
    labels = Classifier()
    with pytest.raises(ValueError, match="y has the class 3"):
        labels.partial_fit(X, [3] * 60, classes=[0, 1])
    assert vars(labels) == vars(Classifier())


def test_every_attribute_that_is_listed_can_be_read(digits):
    """As completion in a notebook does; scikit-learn's MLP too has no best validation score without early stopping."""
    model = Classifier(epochs=1).fit(*digits)
    assert all(hasattr(model, name) for name in dir(model))
    assert model.best_validation_score_ is None
    if "__dir__" in vars(BaseEstimator):  # scikit-learn 1.8: before a fit, what is set by it is not listed
        assert all(hasattr(Classifier(), name) for name in dir(Classifier()))


def test_unknown_names_are_refused(digits):
    for name in ("activation", "loss", "solver", "batch_size"):
        with pytest.raises(ValueError, match=f"Classifier: {name} is 'x'; expected"):
            Classifier(**{name: "x"}).fit(*digits)
