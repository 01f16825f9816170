"""Networks as scikit-learn estimators, for pipelines, grid searches and cross-validation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.utils import check_random_state, compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ImportError:
    raise ImportError('tinynet.sklearn needs scikit-learn 1.6; use pip install "tinynet-grad[sklearn]"') from None

import tinynet as tn
from tinynet.arrays import Array, Params
from tinynet.training.callbacks import Epoch

FLOATING = (np.float64, np.float32)

ACTIVATIONS: Mapping[str, tn.Layer] = {
    "sigmoid": tn.Sigmoid(),
    "logistic": tn.Sigmoid(),
    "tanh": tn.Tanh(),
    "relu": tn.ReLU(),
    "gelu": tn.GELU(),
    "silu": tn.SiLU(),
}
SOLVERS: Mapping[str, Callable[[float, float], tn.Optimizer]] = {
    "sgd": tn.SGD,
    "nesterov": tn.Nesterov,
    "adam": lambda lr, _: tn.Adam(lr),
    "adamw": lambda lr, _: tn.AdamW(lr),
}


@dataclass(eq=False, repr=False)
class _Network(BaseEstimator):
    """The common part of both: layers by size, and mini-batches in `tinynet.fit`."""

    LOSSES: ClassVar[Mapping[str, tn.Loss]]
    METRIC: ClassVar[str]

    hidden_sizes: Sequence[int] = (30,)
    _: KW_ONLY
    activation: str = "sigmoid"
    loss: str = "squared_error"
    solver: str | tn.Optimizer = "sgd"
    alpha: float = 0.0
    epochs: int = 100
    lr: float | None = None
    momentum: float = 0.0
    batch_size: int | Literal["auto"] | None = "auto"
    shuffle: bool = True
    random_state: Any = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    tol: float = 1e-4
    warm_start: bool = False
    verbose: bool = False
    hidden_layer_sizes: Sequence[int] | None = None
    max_iter: int | None = None
    learning_rate_init: float | None = None

    net_: tn.Sequential = field(init=False)
    params_: Params = field(init=False)
    loss_curve_: list[float] = field(init=False)
    validation_scores_: list[float] = field(init=False)
    n_iter_: int = field(init=False)
    _rng: np.random.Generator = field(init=False)
    _state: tn.TrainingState | None = field(init=False)

    @property
    def coefs_(self) -> list[Array]:
        """Return the weights of each layer (n_in, n_out), as scikit-learn has them: Wᵀ."""
        return [p["W"].T for p in self._affine()]

    @property
    def intercepts_(self) -> list[Array]:
        """Return the biases of each layer (n_out,)."""
        return [p["b"] for p in self._affine()]

    @property
    def loss_(self) -> float:
        """Return the loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def best_loss_(self) -> float:
        """Return the smallest loss of an epoch."""
        return min(self.loss_curve_)

    @property
    def best_validation_score_(self) -> float | None:
        """Return the largest of `validation_scores_`; None where there is none."""
        return max(self.validation_scores_, default=None)

    @property
    def n_layers_(self) -> int:
        """Return the number of layers, that of the inputs among them."""
        return len(self._affine()) + 1

    @property
    def n_outputs_(self) -> int:
        """Return the number of outputs."""
        return len(self.intercepts_[-1])

    def _affine(self) -> list[Params]:
        return [p for p in self.params_ if p]

    def _fit(self, X: Array, Y: Array, weights: Array | None) -> Self:
        if not (self.warm_start and hasattr(self, "params_")):
            self._start(X, Y)
        self._state = None
        stopping: dict[str, Any] = {}
        if self.early_stopping:
            rule = tn.EarlyStopping(f"validation_{self.METRIC}", self.n_iter_no_change, self.tol, "max")
            stopping = {"validation": float(self.validation_fraction), "metrics": [self.METRIC], "early_stopping": rule}
        return self._train(X, Y, weights, self._either("epochs", "max_iter"), **stopping)

    def _train(self, X: Array, Y: Array, weights: Array | None, epochs: int, **stopping: Any) -> Self:
        """Go on from where training is."""
        size = self.batch_size
        if isinstance(size, str):
            if size != "auto":
                raise ValueError(f'{type(self).__name__}: batch_size is {size!r}; expected an int, None or "auto"')
            size = 10 if len(X) > 50 else None
        result = tn.fit(
            self.net_,
            self._chosen("loss", self.LOSSES),
            X,
            Y,
            params=self.params_,
            optimizer=self._optimizer(min(size or len(X), len(X))),
            epochs=epochs,
            batch_size=size,
            shuffle=self.shuffle,
            seed=int(self._rng.integers(2**31)),
            state=self._state,
            sample_weight=weights,
            callbacks=[self._tell] if self.verbose else [],
            **stopping,
        )
        self.params_, self._state = result.params, result.state
        self.loss_curve_ = self.loss_curve_ + result.history["loss"].tolist()
        scores = result.history.get(f"validation_{self.METRIC}", np.empty(0)).tolist()
        self.validation_scores_ = self.validation_scores_ + scores
        self.n_iter_ = len(self.loss_curve_)
        return self

    def _tell(self, epoch: Epoch) -> None:
        print(f"Iteration {self.n_iter_ + epoch.epoch + 1}, loss = {epoch.row['loss']:.8f}")

    def _start(self, X: Array, Y: Array) -> None:
        hidden = self._either("hidden_sizes", "hidden_layer_sizes")
        if not isinstance(hidden, Iterable):
            raise TypeError(f"{type(self).__name__}: hidden_sizes is {hidden!r}; expected one int per layer, as (30,)")
        self._rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
        self.net_ = self._layers([X.shape[1], *hidden, Y.shape[1]])
        self.params_ = self.net_.init(self._rng, X.dtype)
        self._state = None
        self.loss_curve_, self.validation_scores_ = [], []
        self.n_iter_ = 0

    def _layers(self, sizes: list[int]) -> tn.Sequential:
        between = () if self.activation == "identity" else (self._chosen("activation", ACTIVATIONS),)
        layers = [(tn.Linear(n_in, n_out), *between) for n_in, n_out in itertools.pairwise(sizes)]
        return tn.Sequential(*itertools.chain(*layers[:-1]), layers[-1][0])

    def _optimizer(self, size: int) -> tn.Optimizer:
        """Return the optimizer; as scikit-learn's, `alpha` is a penalty per batch, on weights alone."""
        optimizer = self.solver
        if not isinstance(optimizer, tn.Optimizer):
            lr = self._either("lr", "learning_rate_init")
            if lr is None:
                flat = isinstance(self.net_.layers[-1], tn.Sigmoid)  # its slopes take larger steps
                lr = 1e-3 if optimizer in ("adam", "adamw") else 1.0 if flat else 0.05
            optimizer = self._chosen("solver", SOLVERS)(lr, self.momentum)
        if not self.alpha:
            return optimizer
        return tn.Groups({"*.W": tn.WeightDecay(optimizer, self.alpha / size), "*": optimizer})

    def _weights(self, X: Array, y: Array, sample_weight: Any) -> Array | None:
        """Return the weights with mean 1, so that only their ratios count, as if samples were left out or repeated."""
        class_weight = getattr(self, "class_weight", None)  # which a regressor has not
        if sample_weight is None and class_weight is None:
            return None
        weights = np.asarray(_check_sample_weight(sample_weight, X, ensure_non_negative=True), np.float64)
        if class_weight is not None:
            weights = weights * compute_sample_weight(class_weight, y)
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number")
        return weights / weights.mean()

    def _either(self, own: str, scikit_learn: str) -> Any:
        """Return the setting by scikit-learn's name where that is given, else by ours."""
        value = getattr(self, scikit_learn)
        return getattr(self, own) if value is None else value

    def _chosen(self, name: str, table: Mapping[str, Any]) -> Any:
        value = getattr(self, name)
        if not isinstance(value, str) or value not in table:
            raise ValueError(f"{type(self).__name__}: {name} is {value!r}; expected one of {sorted(table)}")
        return table[value]

    @contextmanager
    def _unchanged_if_refused(self) -> Iterator[None]:
        """Leave the estimator as it was where training is refused, or fails."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _forward(self, X: Any) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=FLOATING, reset=False)
        return tn.predict(self.net_, self.params_, X)


@dataclass(eq=False, repr=False)
class Classifier(ClassifierMixin, _Network):
    """A classifier: by default sigmoid layers and the squared error to one-hot targets, one output per class.

    Args:
        hidden_sizes: units of each hidden layer; () for none.
        activation: of the hidden layers: "sigmoid" or "logistic", "tanh", "relu", "gelu", "silu", "identity".
        loss: "squared_error", with sigmoids at the outputs; "cross_entropy" or "log_loss", with softmax there.
        solver: "sgd", "nesterov", "adam", "adamw", or a `tinynet.Optimizer`.
        alpha: λ of the penalty ½ λ ‖W‖² / batch size on weights, not on biases.
        epochs: passes over the data that `fit` makes, at most; `partial_fit` makes one.
        lr: the learning rate; None for 0.001 with Adam, and with SGD 1 where the outputs are sigmoids, else 0.05.
        momentum: of "sgd" and "nesterov".
        batch_size: samples per batch; None for all; "auto" for 10, or all where there are at most 50.
        shuffle: whether each epoch meets the samples in a new order.
        random_state: an int for the same result each time, a `numpy.random.RandomState`, or None.
        early_stopping: whether `fit` holds out `validation_fraction` of the samples, stops when the score on them has
            not grown by `tol` for `n_iter_no_change` epochs, and keeps the best parameters.
        warm_start: whether `fit` goes on from the parameters of the call before.
        verbose: whether to print the loss of each epoch.
        class_weight: a weight for each label, or "balanced"; None for 1.
        hidden_layer_sizes, max_iter, learning_rate_init: scikit-learn's names for hidden_sizes, epochs and lr; where
            they are given, they count.

    Attributes:
        classes_ (n_classes,); net_ and params_, which `tinynet.save` takes; coefs_ and intercepts_, one per layer;
        loss_curve_, the loss of each epoch; loss_ and best_loss_, the last and the smallest; validation_scores_ and
        best_validation_score_; n_iter_, the number of epochs; n_layers_, n_outputs_; n_features_in_;
        feature_names_in_ where X has names.

    Inputs on very different scales train slowly, and `tinynet.NoHeadwayWarning` says so: put a StandardScaler before
    it. A call that is refused leaves the estimator as it was.
    """

    LOSSES: ClassVar[Mapping[str, tn.Loss]] = {
        "squared_error": tn.SquaredError("mean"),
        "cross_entropy": tn.SoftmaxCrossEntropy("mean"),
        "log_loss": tn.SoftmaxCrossEntropy("mean"),
    }
    METRIC: ClassVar[str] = "accuracy"

    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None
    classes_: npt.NDArray[Any] = field(init=False)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the start on X (n_samples, n_features) and y (n_samples,), labels of any kind."""
        with self._unchanged_if_refused():
            X, y = self._validated(X, y, reset=True)
            weights, classes = self._weights(X, y, sample_weight), np.unique(y)
            if self.warm_start and hasattr(self, "classes_") and not np.array_equal(classes, self.classes_):
                raise ValueError(f"y has the classes {classes}; with warm_start expected {self.classes_}, as before")
            self.classes_ = classes
            return self._fit(X, self._one_hot(y, X.dtype), weights)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Pass once over X and y, going on from where training is; the first call must name all `classes`."""
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if not first and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes is {classes!r:.80}; the first call was given {self.classes_.tolist()!r:.80}")
        with self._unchanged_if_refused():
            X, y = self._validated(X, y, reset=first)
            if first:
                self.classes_ = np.unique(classes)
            Y = self._one_hot(y, X.dtype)
            if first:
                self._start(X, Y)
            return self._train(X, Y, self._weights(X, y, sample_weight), 1)

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        """Return (n_samples, n_classes): the outputs, scaled so that each row adds up to 1; of logits, the softmax."""
        y_hat = self._forward(X)
        if not isinstance(self.net_.layers[-1], tn.Sigmoid):
            y_hat = np.exp(y_hat - y_hat.max(axis=1, keepdims=True))
        total = y_hat.sum(axis=1, keepdims=True)
        y_hat[total[:, 0] == 0] = 1  # every unit saturated at 0: nothing is known
        return np.asarray(y_hat / y_hat.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return (n_samples,): the class with the largest output."""
        best = self._forward(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _layers(self, sizes: list[int]) -> tn.Sequential:
        output = (tn.Sigmoid(),) if self.loss == "squared_error" else ()
        return tn.Sequential(*super()._layers(sizes).layers, *output)

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=FLOATING, reset=reset)
        check_classification_targets(y)
        return X, column_or_1d(y, warn=True)

    def _one_hot(self, y: Array, dtype: Any) -> Array:
        if len(strange := np.setdiff1d(y, self.classes_)):
            raise ValueError(f"y has the class {strange.tolist()[0]!r}; expected one of {self.classes_.tolist()!r:.80}")
        return (y[:, None] == self.classes_).astype(dtype)


@dataclass(eq=False, repr=False)
class Regressor(RegressorMixin, MultiOutputMixin, _Network):
    """A regressor: by default sigmoid hidden layers, affine outputs, the squared error.

    Args:
        As those of `Classifier`, but for class_weight; loss is "squared_error" or "huber".

    Attributes:
        As those of `Classifier`, but for classes_; validation_scores_ are R².

    Scale what it sees: a StandardScaler before it, and a TransformedTargetRegressor around it where y is not near 1.
    """

    LOSSES: ClassVar[Mapping[str, tn.Loss]] = {
        "squared_error": tn.SquaredError("mean"),
        "huber": tn.Huber(reduction="mean"),
    }
    METRIC: ClassVar[str] = "r2"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the start on X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs)."""
        with self._unchanged_if_refused():
            X, Y = self._validated(X, y, reset=True)
            return self._fit(X, Y, self._weights(X, Y, sample_weight))

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Pass once over X and y, going on from where training is."""
        first = not hasattr(self, "params_")
        with self._unchanged_if_refused():
            X, Y = self._validated(X, y, reset=first)
            if first:
                self._start(X, Y)
            return self._train(X, Y, self._weights(X, Y, sample_weight), 1)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return ŷ of the shape that y had."""
        y_hat = self._forward(X)
        return np.asarray(y_hat[:, 0] if self._flat else y_hat)

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        X, y = validate_data(self, X, y, dtype=FLOATING, reset=reset, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if reset:
            self._flat = y.ndim == 1
        return X, y.reshape(len(y), -1).astype(X.dtype)
