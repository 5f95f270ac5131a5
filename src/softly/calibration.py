"""Scores that lie to probabilities that can be trusted: scikit-learn estimators over logits."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from softly import targets
from softly.calibration_files import Stored, read
from softly.functions import log_softmax, softmax
from softly.inputs import no_distributions, probabilities
from softly.kernels.blas import one_blas_thread
from softly.scalings import METHODS, Affine, Monotone, Scaling, usable
from softly.selection import choose

Array = NDArray[Any]

_FLOOR = 1e-7  # what a probability of 0 is taken for, at most
_ZERO = 1e-37  # below that float32 has not all its digits: as good as 0
_LARGEST = 1e15  # of finite logits: what is added to them still shows
_FOR_EACH_CLASS = ("vector", "matrix")


def from_probabilities(p: Any) -> Array:
    """Logits of probabilities: their logarithms, as calibration takes them.

    Parameters
    ----------
    p : array_like, shape (N, K)
        Not negative, rows that sum to 1. A 0 (or less than 1e-37) counts as half of the least
        probability above that in its row, and 1e-7 at most: who says 0 means "less than I can
        tell", and the logarithm of 0 would decide every fit alone.

    Returns
    -------
    ndarray, shape (N, K)
        In the type of p, or float64.

    Raises
    ------
    ValueError
        If a row is no distribution; logits are recognised where they are negative or do not sum
        to 1.

    Examples
    --------
    >>> import numpy as np, softly
    >>> softly.from_probabilities(np.array([[0.5, 0.5, 0.0]])).round(2)
    array([[ -0.69,  -0.69, -16.12]])
    """
    p = probabilities(p)
    there = p > _ZERO
    least = np.where(there, p, np.inf).min(axis=1, keepdims=True).astype(np.float64)
    logs: Array = np.log(np.where(there, p, np.minimum(_FLOOR, least / 2)))
    return logs.astype(p.dtype, copy=False)


def with_first(scores: Array) -> Array:
    """With a column for the first of two classes, whose logit is 0, if there is but one column."""
    if scores.shape[1] > 1:
        return scores
    return np.concatenate([np.zeros_like(scores), scores], axis=1)


class _Calibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What all calibrators share; each says how it finds its scaling."""

    classes: Any
    scaling_: Scaling

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> Any:
        """Find the scaling.

        Parameters
        ----------
        logits : array_like, shape (N, K), or (N, 1)
            Scores before softmax, of rows that the model was not trained on; one column is the
            scores of the second of two classes, as a ``decision_function`` gives them. Infinities
            are used as they are; rows whose loss they decide say nothing here.
        y : array_like, shape (N,)
            The true classes.
        sample_weight : array_like, shape (N,), optional
            Weights of the rows, not negative.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If logits hold NaN, labels do not fit the columns, or probabilities were given.

        Warns
        -----
        UserWarning
            If all rows are of one class, or vector or matrix scaling has fewer rows than classes.
        """
        scores, known = self._checked(logits, reset=True), column_or_1d(y, warn=True)
        assert_all_finite(known, input_name="y")
        check_classification_targets(known)
        if len(known) != len(scores):
            raise ValueError(
                f"logits have {len(scores)} rows, but y has {len(known)}: one for each is needed"
            )
        classes, target = targets.columns_of(known, scores.shape[1], self.classes)
        weight = _check_sample_weight(
            sample_weight, scores, dtype=np.float64, ensure_non_negative=True
        )
        sound = usable(scores, target) & (weight > 0)
        if not sound.any():
            raise ValueError(
                "no row can be learnt from: a finite logit of the true class, and a weight above "
                "0, are needed"
            )
        some = slice(None) if sound.all() else sound
        with one_blas_thread:  # its own spin between our small products
            self._learn(scores[some], target[some], weight[some])
        self.classes_, self.are_probabilities_ = classes, False
        if said := self._too_little(target[some], weight[some]):
            warnings.warn(said, stacklevel=2)
        return self

    def _too_little(self, target: Array, weight: Array) -> str:
        """What to know of a scaling whose rows tell too little; nothing where they tell enough."""
        method, k, seen = self._method(), len(self.classes_), np.unique(target)
        if method == "identity":
            return ""
        if len(seen) < 2:
            return (
                f"all rows are of class {self.classes_[seen[0]]!s}, and {method} scaling makes it "
                "more probable wherever it can: give it rows of the other classes, too"
            )
        if method not in _FOR_EACH_CLASS or not _are_few(target, weight, k):
            return ""
        return (
            f"{method} scaling fits numbers for each of {k} classes, but has {len(target)} rows "
            f"of {len(seen)}: give it as many rows as classes at least, or fit TemperatureScaling, "
            "which has one number"
        )

    def _learn(self, logits: Array, target: Array, weight: Array) -> None:
        raise NotImplementedError

    def decision_function(self, logits: Any) -> Array:
        """Calibrated logits, shape (N, K); for two classes (N,), the second less the first."""
        scores = self._calibrated(logits)
        if scores.shape[1] == 2:
            difference: Array = scores[:, 1] - scores[:, 0]
            return difference
        return scores

    def predict_proba(self, logits: Any) -> Array:
        """Calibrated probabilities.

        Parameters
        ----------
        logits : array_like, shape (N, K), or (N, 1)

        Returns
        -------
        ndarray, shape (N, K)
            Of the logits' type, or float64.
        """
        p: Array = softmax(self._calibrated(logits), axis=1)
        return p

    def predict_log_proba(self, logits: Any) -> Array:
        """Logarithms of `predict_proba`, accurate near 0 and 1; shape (N, K)."""
        log_p: Array = log_softmax(self._calibrated(logits), axis=1)
        return log_p

    def predict(self, logits: Any) -> Array:
        """The most probable classes, shape (N,): from scores, so that no rounding makes a tie."""
        check_is_fitted(self, "classes_")
        scores = self._checked(logits, reset=False)
        deciding = scores if self.scaling_.keeps_order else self.scaling_(scores)
        predicted: Array = self.classes_[deciding.argmax(axis=1)]
        return predicted

    def fold_into(self, W: Any, b: Any) -> tuple[Array, Array]:
        """Weights and biases of a network's last layer that give calibrated logits by themselves.

        Parameters
        ----------
        W : array_like, shape (K, D)
            Of the layer ``W x + b``, whose logits were calibrated; a row for each of their columns.
        b : array_like, shape (K,)

        Returns
        -------
        W : ndarray, shape (K, D)
        b : ndarray, shape (K,)
            Of the type of the W given.

        Raises
        ------
        ValueError
            If the shapes do not fit, or isotonic scaling was chosen, which is no linear map.
        """
        check_is_fitted(self, "classes_")
        W, b, k = np.asarray(W), np.asarray(b), len(self.classes_)
        rows = self.n_features_in_
        if W.ndim != 2 or W.shape[0] != rows or b.shape != (rows,):
            raise ValueError(
                f"W has shape {W.shape} and b {b.shape}, but ({rows}, D) and ({rows},) are needed: "
                "a row for each column of the logits"
            )
        if isinstance(self.scaling_, Monotone):
            raise ValueError(
                "isotonic scaling is no linear map and cannot be folded into a layer: fit "
                "temperature, vector or matrix scaling"
            )
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError(
                "W or b holds NaN or infinity, but a layer's finite numbers are needed"
            )
        dtype = np.result_type(W.dtype, np.float32)
        whole, bias = self.scaling_.matrix(k), self.scaling_.bias
        if rows == 1:  # the first of two classes has logit 0
            whole = whole[1:, 1:] - whole[:1, 1:]
            bias = bias[1:] - bias[:1] if bias.ndim else bias
        return (whole @ W).astype(dtype), (whole @ b + bias).astype(dtype)

    def to_json(self, *, are_probabilities: bool = False) -> str:
        """All that predicting takes, as JSON that any language can read; see `load_calibration`.

        Parameters
        ----------
        are_probabilities : bool
            Whether the logits were `from_probabilities`: whoever loads the file then gives it
            probabilities. So is it in any case where this was loaded from such a file.
        """
        check_is_fitted(self, "classes_")
        columns = int(self.n_features_in_)
        given = are_probabilities or self.are_probabilities_
        return Stored(self._method(), self.scaling_, columns, self.classes_, given).to_json()

    def _method(self) -> str:
        raise NotImplementedError

    def _calibrated(self, logits: Any) -> Array:
        check_is_fitted(self, "classes_")
        scores = self._checked(logits, reset=False)
        calibrated: Array = self.scaling_(scores).astype(scores.dtype, copy=False)
        return calibrated

    def _checked(self, logits: Any, *, reset: bool) -> Array:
        """Logits as floats, shape (N, K); a column for the first of two classes is added."""
        if isinstance(logits, np.ndarray) and logits.ndim != 2:
            raise ValueError(
                f"logits have shape {logits.shape}, but a 2D array is needed, (N, K). Reshape your "
                "data: logits[:, None] is one column, logits[None] one row"
            )
        if not reset:
            self._check_columns(getattr(logits, "shape", ()))
            logits = from_probabilities(logits) if self.are_probabilities_ else logits
        scores: Array = validate_data(
            self, logits, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False
        )
        scores = with_first(scores)
        refuse_no_logits(scores)
        return scores

    def _check_columns(self, shape: tuple[int, ...]) -> None:
        if len(shape) == 2 and shape[1] != self.n_features_in_:
            raise ValueError(
                f"logits have {shape[1]} columns, but those it was fitted to had "
                f"{self.n_features_in_}: give it scores of the same model (X has {shape[1]} "
                f"features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input)"
            )


class _OneMethod(_Calibrated):
    """A calibrator that has but one way."""

    _name: str

    def __init__(self, *, classes: Any = None) -> None:
        self.classes = classes

    def _learn(self, logits: Array, target: Array, weight: Array) -> None:
        self.scaling_ = METHODS[self._name](logits, target, weight)

    def _method(self) -> str:
        return self._name


class TemperatureScaling(_OneMethod):
    r"""One temperature for all logits: ``softmax(z / T)``, with T of the least log loss.

    It changes how sure a model is, and no order: the usual cure of a network that is too sure
    (T above 1), or not sure enough (below). The minimum is exact; for 10,000 rows of 100 classes
    it takes milliseconds.

    Parameters
    ----------
    classes : array_like, shape (K,), optional
        Which label each column of the logits stands for. If none are given, the labels of y,
        sorted, where there are as many as columns; or 0 to K - 1.

    Attributes
    ----------
    temperature_ : float
    classes_ : ndarray, shape (K,)
    scaling_ : softly.scalings.Affine
    n_features_in_ : int
        Columns of the logits.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017.

    Examples
    --------
    >>> import numpy as np, softly
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=2000)
    >>> fair = rng.normal(size=(2000, 3)) + np.eye(3)[y]  # whose best logits are these
    >>> model = softly.TemperatureScaling().fit(4 * fair, y)
    >>> round(model.temperature_)
    4
    """

    _name = "temperature"

    @property
    def temperature_(self) -> float:
        check_is_fitted(self, "classes_")
        assert isinstance(self.scaling_, Affine)
        return self.scaling_.temperature


class VectorScaling(_OneMethod):
    r"""A factor and a bias for each class: ``softmax(v z / T + b)``, drawn towards one temperature.

    z are a row's logits less their mean. The penalty, :math:`\frac{K}{N}(|v - 1|^2 + |b|^2)` beside
    the mean log loss, keeps a hundred classes and a few thousand rows from overfitting.

    Parameters
    ----------
    classes : array_like, shape (K,), optional
        As for `TemperatureScaling`.

    Attributes
    ----------
    classes_ : ndarray, shape (K,)
    scaling_ : softly.scalings.Affine
        Its `temperature`, `weight` (v) and `bias`.
    n_features_in_ : int

    References
    ----------
    Berta, Holzmueller, Jordan and Bach, "Structured matrix scaling for multi-class calibration",
    2025.

    Examples
    --------
    >>> import numpy as np, softly
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=2000)
    >>> fair = rng.normal(size=(2000, 3)) + np.eye(3)[y]
    >>> model = softly.VectorScaling().fit(fair + [0, 1, -1], y)
    >>> (model.scaling_.bias - model.scaling_.bias.mean()).round() + 0.0
    array([ 0., -1.,  1.])
    """

    _name = "vector"


class MatrixScaling(_OneMethod):
    r"""All logits for each class: ``softmax(W z / T + b)``, drawn towards one temperature.

    z are a row's logits less their mean. The penalty is that of `VectorScaling` on the diagonal and
    the biases, and K - 1 times as strong off it (structured matrix scaling).

    Parameters
    ----------
    classes : array_like, shape (K,), optional
        As for `TemperatureScaling`.

    Attributes
    ----------
    classes_ : ndarray, shape (K,)
    scaling_ : softly.scalings.Affine
        Its `temperature`, `weight` (W) and `bias`.
    n_features_in_ : int

    References
    ----------
    Berta, Holzmueller, Jordan and Bach, "Structured matrix scaling for multi-class calibration",
    2025.

    Examples
    --------
    >>> import numpy as np, softly
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=2000)
    >>> fair = rng.normal(size=(2000, 3)) + np.eye(3)[y]
    >>> softly.MatrixScaling().fit(fair, y).scaling_.weight.shape
    (3, 3)
    """

    _name = "matrix"


class IsotonicScaling(_OneMethod):
    """One rising function of all probabilities, from how often each was right.

    It supposes no form, and keeps the order of a row's classes: the isotonic regression of all
    classes' truth on all their probabilities, which are then brought back to the sum 1.

    Parameters
    ----------
    classes : array_like, shape (K,), optional
        As for `TemperatureScaling`.

    Attributes
    ----------
    classes_ : ndarray, shape (K,)
    scaling_ : softly.scalings.Monotone
        Its `knots` and `values`.
    n_features_in_ : int

    References
    ----------
    Zhang, Kailkhura and Han, "Mix-n-Match: ensemble and compositional methods for uncertainty
    calibration in deep learning", 2020.

    Examples
    --------
    >>> import numpy as np, softly
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=2000)
    >>> fair = rng.normal(size=(2000, 3)) + np.eye(3)[y]
    >>> model = softly.IsotonicScaling().fit(4 * fair, y)
    >>> bool(model.predict_proba([[9.0, 0.0, 0.0]]).max() < 0.95)
    True
    """

    _name = "isotonic"


class Calibrator(_Calibrated):
    """Calibrated probabilities from the logits of any model, by the scaling that suits them.

    Parameters
    ----------
    method : str or list of str, default="auto"
        "identity", "temperature", "isotonic", "vector" or "matrix"; or "auto", which takes the
        simplest whose log loss by cross-validation (five folds) is within a standard error of the
        best one's, in this order of simplicity; vector and matrix scaling only where there are as
        many rows as classes, and of two classes. To leave the logits alone is one of them. Of a
        list, one is chosen in the same way.
    classes : array_like, shape (K,), optional
        As for `TemperatureScaling`.

    Attributes
    ----------
    method_ : str
        What was chosen.
    reason_ : str
        Why, in a sentence.
    candidates_ : dict of str to Candidate
        How each did; none where the method was given.
    cross_fit_ : CrossFit or None
        The fits of what was chosen to all folds but one each, by which each row was held out.
    scaling_ : softly.scalings.Affine or softly.scalings.Monotone
    are_probabilities_ : bool
        Whether it predicts from probabilities: if it was loaded from a file made of such.
    classes_ : ndarray, shape (K,)
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np, softly
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=2000)
    >>> fair = rng.normal(size=(2000, 3)) + np.eye(3)[y]
    >>> softly.Calibrator().fit(4 * fair, y).method_
    'temperature'
    >>> softly.Calibrator().fit(fair, y).method_
    'identity'
    """

    def __init__(self, method: Any = "auto", *, classes: Any = None) -> None:
        self.method = method
        self.classes = classes

    def _learn(self, logits: Array, target: Array, weight: Array) -> None:
        choice = choose(logits, target, weight, self._among(target, weight, logits.shape[1]))
        self.method_, self.reason_ = choice.method, choice.reason
        self.candidates_, self.cross_fit_ = choice.candidates, choice.cross_fit
        self.scaling_ = METHODS[self.method_](logits, target, weight)

    def _among(self, target: Array, weight: Array, k: int) -> list[str]:
        """The methods to choose from, from simple to rich."""
        asked = [self.method] if isinstance(self.method, str) else self.method
        if not isinstance(asked, (list, tuple)) or not asked or set(asked) - {"auto", *METHODS}:
            raise ValueError(
                f"method is {self.method!r}, but auto, or some of {', '.join(METHODS)}, is needed"
            )
        auto = [n for n in METHODS if n not in _FOR_EACH_CLASS or not _are_few(target, weight, k)]
        among = [n for n in METHODS if n in asked or (n in auto and "auto" in asked)]
        # A matrix of two centred logits is no more than a vector of them.
        return among if k > 2 or "vector" not in among else [n for n in among if n != "matrix"]

    @property
    def temperature_(self) -> float | None:
        """Where it is all that was fitted; else None."""
        scaling = self.scaling_
        if self.method_ == "temperature" and isinstance(scaling, Affine):
            return scaling.temperature
        return None

    def _method(self) -> str:
        return self.method_


def load_calibration(path: str | os.PathLike[str]) -> Calibrator:
    """The calibrator of a JSON file that `to_json` made, ready to predict.

    Parameters
    ----------
    path : path

    Returns
    -------
    Calibrator
        It takes what the file says it was fitted to: logits, or probabilities
        (`are_probabilities_`).

    Raises
    ------
    ValueError
        If the file is no such JSON.
    """
    stored = read(path)
    model = Calibrator(stored.method)
    model.method_, model.reason_ = stored.method, "read from a file"
    model.candidates_, model.cross_fit_ = {}, None
    model.scaling_ = stored.scaling
    model.classes_, model.n_features_in_ = stored.classes, stored.columns
    model.are_probabilities_ = stored.are_probabilities
    return model


def _are_few(target: Array, weight: Array, k: int) -> bool:
    """Whether rows tell too little of each class."""
    return bool(weight.sum() < k or len(np.unique(target)) < 2)


def refuse_no_logits(scores: Array) -> None:
    """Raise ValueError for scores, shape (N, K), that are NaN, probabilities or too large."""
    if np.isnan(scores.min()):
        bad = np.flatnonzero(np.isnan(scores).any(axis=1))
        raise ValueError(
            f"logits[{bad[0]}] holds NaN, in {len(bad)} of {len(scores)} rows: leave such rows "
            "out, or mend what made them (input contains NaN)"
        )
    _refuse_probabilities(scores)
    _refuse_endless(scores)


def _refuse_endless(scores: Array) -> None:
    """Logits whose squares no number holds."""
    if max(scores.max(), -scores.min()) <= _LARGEST:
        return
    largest = float(np.abs(scores, where=np.isfinite(scores), out=np.zeros_like(scores)).max())
    if largest > _LARGEST:
        raise ValueError(
            f"logits are as large as {largest:.3g}, but {_LARGEST:g} at most is needed: divide "
            "them by a number that all share, or say infinity where it is meant"
        )


def _refuse_probabilities(scores: Array) -> None:
    """Logits of many rows that all sum to 1 are none."""
    if len(scores) > 1 and scores.min() >= 0 and not len(no_distributions(scores)):
        raise ValueError(
            f"logits has {len(scores)} rows that are not negative and all sum to 1, as "
            "probabilities do, but logits are needed: softly.from_probabilities(p) makes them"
        )
