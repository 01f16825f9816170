"""Sigmoid networks as scikit-learn estimators, for pipelines, grid searches and cross-validation."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError:
    raise ImportError('tinynet.sklearn needs scikit-learn 1.6; use pip install "tinynet-grad[sklearn]"') from None

import tinynet as tn
from tinynet.arrays import Array, Params

FLOATING = (np.float64, np.float32)


class _Network(BaseEstimator):
    """The common part of both: layers by size, E = ½ Σ (ŷ − y)² / m, mini-batch SGD with momentum."""

    net_: tn.Sequential
    params_: Params
    loss_curve_: list[float]
    n_iter_: int
    _rng: np.random.Generator
    _state: tn.TrainingState | None

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (30,),
        *,
        epochs: int = 100,
        lr: float = 1.0,
        momentum: float = 0.0,
        batch_size: int | None = 10,
        shuffle: bool = True,
        random_state: Any = None,
    ) -> None:
        self.hidden_sizes = hidden_sizes
        self.epochs = epochs
        self.lr = lr
        self.momentum = momentum
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.random_state = random_state

    def _fit(self, X: Array, Y: Array) -> Self:
        self._start(X, Y)
        return self._train(X, Y, self.epochs)

    def _train(self, X: Array, Y: Array, epochs: int) -> Self:
        """Go on from where training is."""
        result = tn.fit(
            self.net_,
            tn.SquaredError("mean"),
            X,
            Y,
            params=self.params_,
            optimizer=tn.SGD(self.lr, self.momentum),
            epochs=epochs,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=int(self._rng.integers(2**31)),
            state=self._state,
        )
        self.params_, self._state = result.params, result.state
        self.loss_curve_ += result.history["loss"].tolist()
        self.n_iter_ = len(self.loss_curve_)
        return self

    def _start(self, X: Array, Y: Array) -> None:
        if not isinstance(self.hidden_sizes, Iterable):
            raise TypeError(
                f"{type(self).__name__}: hidden_sizes is {self.hidden_sizes!r}; expected one int per layer, as (30,)"
            )
        self._rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
        self.net_ = self._layers([X.shape[1], *self.hidden_sizes, Y.shape[1]])
        self.params_ = self.net_.init(self._rng, X.dtype)
        self._state = None
        self.loss_curve_ = []
        self.n_iter_ = 0

    def _layers(self, sizes: list[int]) -> tn.Sequential:
        pairs = [(tn.Linear(n_in, n_out), tn.Sigmoid()) for n_in, n_out in itertools.pairwise(sizes)]
        return tn.Sequential(*itertools.chain(*pairs))

    def _forward(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATING, reset=False)
        return self.net_.forward(self.params_, X.astype(self.params_[0]["W"].dtype, copy=False))[0]


class Classifier(ClassifierMixin, _Network):
    """A classifier: sigmoid layers, one output per class, the squared error to one-hot targets.

    Args:
        hidden_sizes: units of each hidden layer; () for none.
        epochs: passes over the data that `fit` makes; `partial_fit` makes one.
        lr, momentum: of `tinynet.SGD`.
        batch_size: samples per batch; None for all.
        shuffle: whether each epoch meets the samples in a new order.
        random_state: an int for the same result each time, a `numpy.random.RandomState`, or None.

    Attributes:
        classes_ (n_classes,); net_ and params_, which `tinynet.save` takes; loss_curve_, the loss of each epoch;
        n_iter_, their number; n_features_in_; feature_names_in_ where X has names.

    Inputs on very different scales train slowly: put a StandardScaler before it.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train from the start on X (n_samples, n_features) and y (n_samples,), labels of any kind."""
        X, y = self._validated(X, y, reset=True)
        self.classes_ = np.unique(y)
        return self._fit(X, self._one_hot(y, X.dtype))

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Pass once over X and y, going on from where training is; the first call must name all `classes`."""
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if not first and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes is {classes!r:.80}; the first call was given {self.classes_.tolist()!r:.80}")
        X, y = self._validated(X, y, reset=first)
        if first:
            self.classes_ = np.unique(classes)
        Y = self._one_hot(y, X.dtype)
        if first:
            self._start(X, Y)
        return self._train(X, Y, 1)

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Return (n_samples, n_classes): the outputs, scaled so that each row adds up to 1."""
        y_hat = self._forward(X)
        total = y_hat.sum(axis=1, keepdims=True)
        y_hat[total[:, 0] == 0] = 1  # every unit saturated at 0: nothing is known
        proba: npt.NDArray[Any] = y_hat / y_hat.sum(axis=1, keepdims=True)
        return proba

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return (n_samples,): the class with the largest output."""
        best = self._forward(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[best]
        return labels

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=FLOATING, reset=reset)
        check_classification_targets(y)
        return X, column_or_1d(y, warn=True)

    def _one_hot(self, y: Array, dtype: Any) -> Array:
        if len(strange := np.setdiff1d(y, self.classes_)):
            raise ValueError(f"y has the class {strange.tolist()[0]!r}; expected one of {self.classes_.tolist()!r:.80}")
        return (y[:, None] == self.classes_).astype(dtype)


class Regressor(RegressorMixin, MultiOutputMixin, _Network):
    """A regressor: sigmoid hidden layers, affine outputs, the squared error.

    Args:
        As those of `Classifier`.

    Attributes:
        net_ and params_, which `tinynet.save` takes; loss_curve_, the loss of each epoch; n_iter_, their number;
        n_features_in_; feature_names_in_ where X has names.

    Scale what it sees: a StandardScaler before it, and a TransformedTargetRegressor around it where y is not near 1.
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (30,),
        *,
        epochs: int = 100,
        lr: float = 0.05,
        momentum: float = 0.0,
        batch_size: int | None = 10,
        shuffle: bool = True,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            hidden_sizes,
            epochs=epochs,
            lr=lr,
            momentum=momentum,
            batch_size=batch_size,
            shuffle=shuffle,
            random_state=random_state,
        )

    def fit(self, X: Any, y: Any) -> Self:
        """Train from the start on X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs)."""
        X, Y = self._validated(X, y, reset=True)
        return self._fit(X, Y)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Pass once over X and y, going on from where training is."""
        first = not hasattr(self, "params_")
        X, Y = self._validated(X, y, reset=first)
        if first:
            self._start(X, Y)
        return self._train(X, Y, 1)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return ŷ of the shape that y had."""
        y_hat: npt.NDArray[Any] = self._forward(X)
        return y_hat[:, 0] if self._flat else y_hat

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=FLOATING, reset=reset, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if reset:
            self._flat = y.ndim == 1
        return X, y.reshape(len(y), -1).astype(X.dtype)

    def _layers(self, sizes: list[int]) -> tn.Sequential:
        return tn.Sequential(*super()._layers(sizes).layers[:-1])
