"""The scikit-learn face: a softmax classifier that is linear in its features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin, SparseCoefMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from softly import targets
from softly.functions import log_softmax, softmax
from softly.objective import Objective
from softly.solvers.auto import solve
from softly.solvers.result import Pass

Array = NDArray[Any]

_LITTLE = 1 << 20  # bytes


class SoftmaxClassifier(LinearClassifierMixin, SparseCoefMixin, BaseEstimator):  # type: ignore[misc]
    r"""Multinomial logistic regression: scikit-learn's `LogisticRegression`, faster.

    Minimises scikit-learn's objective to the letter,

    .. math:: C \sum_i s_i \, \mathrm{CE}(\mathrm{softmax}(W x_i + b), y_i)
              + \tfrac{1 - r}{2} \|W\|_2^2 + r \|W\|_1,

    with r the `l1_ratio` and the intercept b not penalised, so that the coefficients agree with
    those of ``LogisticRegression(C=C)``, for two classes and for many.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty; ``numpy.inf`` for none.
    l1_ratio : float, default=0.0
        From 0 to 1: how much of the penalty is that of the coefficients' sizes, which makes many of
        them exactly 0 (lasso: 1; elastic net: between).
    fit_intercept : bool, default=True
        Whether each class has an intercept.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class; ``"balanced"`` weighs classes alike.
    tol : float, default=1e-4
        The fit ends when its objective is proven to be above its minimum by no more than this part
        of itself.
    max_iter : int, default=100
        The most iterations; a fit that needs more warns with a `ConvergenceWarning`.
    warm_start : bool, default=False
        Start from the coefficients of the last fit.
    verbose : bool or callable, default=False
        True prints a line for each pass over the data; a callable is given each
        `softly.solvers.Pass` instead.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    coef_ : ndarray of shape (K, D), or (1, D) for two classes
    intercept_ : ndarray of shape (K,) or (1,)
    n_iter_ : ndarray of shape (1,)
        Iterations of the solver.
    n_passes_ : float
        How often the data was read, a sample of its rows counted as a part.
    objective_ : float
        The objective above, divided by C times the sum of the weights: the mean loss
        with its penalty.
    optimality_gap_ : float
        How far `objective_` can be above its minimum, as a part of it. It is proven, for the data
        and the weights of this fit: 1e-4 says that no coefficients whatever have an objective more
        than 0.01 % below. ``inf`` where nothing is proven, as for ``C=inf`` with many coefficients
        or with classes that a plane parts.
    solver_ : str
        The solver that was chosen, and what it was preconditioned by.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where `X` had column names.

    Notes
    -----
    Dense and CSR input; float32 is worked on, and answered, in float32. No more than a
    block of the N x K scores is ever held. Coefficients have the same bits on any number
    of threads. Weights of 2 are rows given twice.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> import softly
    >>> X, y = load_iris(return_X_y=True)
    >>> model = softly.SoftmaxClassifier(max_iter=1000).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    >>> model.predict_proba(X[:1]).round(2)
    array([[0.98, 0.02, 0.  ]])
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-4,
        max_iter: int = 100,
        warm_start: bool = False,
        verbose: bool | Callable[[Pass], None] = False,
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxClassifier:
        """Find the coefficients.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Features, finite.
        y : array_like, shape (N,) or (N, K)
            Classes: any labels, at least two different ones. Or how much of each class a row is:
            numbers that are not negative, whose rows sum to 1; the classes are then 0 to K - 1.
        sample_weight : array_like, shape (N,), optional
            Weights of the rows, not negative.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds NaN or infinity, y one class only (of a weight above 0) or rows that are no
            shares, or a parameter makes no sense.
        """
        self._check_parameters()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            accept_large_sparse=True,
            dtype=[np.float64, np.float32],
            order="C",
            multi_output=True,
        )
        _check_size(X)
        if sp.issparse(X) and X.shape[0] * X.shape[1] * X.dtype.itemsize <= _LITTLE:
            X = X.toarray()  # solved exactly, and faster
        known = targets.read(X, y, sample_weight, self.class_weight)
        classes, total = known.classes, known.total_weight
        objective = Objective(
            X,
            known.values,
            len(classes),
            weight=known.weight,
            l2=(1 - self.l1_ratio) / (self.C * total),
            l1=self.l1_ratio / (self.C * total),
            fit_intercept=self.fit_intercept,
        )
        result = solve(
            objective,
            self._start(objective, classes),
            tol=self.tol,
            max_iter=self.max_iter,
            on_pass=self._reporter(),
        )
        if not result.converged:
            warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
        parameters = result.parameters.astype(X.dtype)
        self.classes_ = classes
        self.coef_ = np.ascontiguousarray(parameters[:, : X.shape[1]])
        self.intercept_ = (
            parameters[:, -1].copy()
            if self.fit_intercept
            else np.zeros(len(parameters), parameters.dtype)
        )
        self.n_iter_ = np.array([result.n_iter], dtype=np.int32)
        self.n_passes_ = result.n_passes
        self.objective_ = result.objective
        self.optimality_gap_ = result.gap
        self.solver_ = result.solver
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, in the order of `classes_`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)

        Returns
        -------
        ndarray, shape (N, K)
        """
        p: Array = softmax(self._scores(X), axis=1)
        return p

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`, accurate where a probability is near 0 or 1.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)

        Returns
        -------
        ndarray, shape (N, K)
        """
        log_p: Array = log_softmax(self._scores(X), axis=1)
        return log_p

    def _scores(self, X: Any) -> Array:
        """A score for each class, also for two, where the first class has score 0."""
        check_is_fitted(self)
        scores = self.decision_function(X)
        return scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], axis=1)

    def _check_parameters(self) -> None:
        for name, held, needed in (
            ("C", isinstance(self.C, Real) and self.C > 0, "a number above 0"),
            (
                "l1_ratio",
                isinstance(self.l1_ratio, Real) and 0 <= self.l1_ratio <= 1,
                "a number from 0 to 1",
            ),
            ("tol", isinstance(self.tol, Real) and self.tol >= 0, "a number, 0 or above"),
            (
                "max_iter",
                isinstance(self.max_iter, Integral) and self.max_iter >= 1,
                "a whole number from 1 up",
            ),
        ):
            if not held:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but {needed} is needed")

    def _start(self, objective: Objective, classes: Array) -> Array:
        start = np.zeros(objective.shape)
        if not (self.warm_start and hasattr(self, "coef_")):
            return start
        if not np.array_equal(self.classes_, classes):
            raise ValueError(
                f"warm_start=True, but the last fit had the classes {self.classes_} and this one "
                f"has {classes}: use a new classifier"
            )
        start[:, : objective.n_features] = self.coef_
        if self.fit_intercept:
            start[:, -1] = self.intercept_
        return start

    def _reporter(self) -> Callable[[Pass], None] | None:
        if callable(self.verbose):
            return self.verbose
        if not self.verbose:
            return None
        began = time.perf_counter()

        def line(done: Pass) -> None:
            print(
                f"pass {done.number:.1f}: objective {done.objective:.6f}, "
                f"gap {done.gap:.1e}, {time.perf_counter() - began:.2f} s"
            )

        return line


def _check_size(X: Any) -> None:
    """Squares of features are added up on the way."""
    values = X.data if sp.issparse(X) else X
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    most = float(np.finfo(X.dtype).max) ** 0.4
    if largest > most:
        raise ValueError(
            f"X holds numbers as large as {largest:.1g}, but from {most:.0e} on sums of squares "
            f"overflow in {X.dtype}: scale the columns (sklearn.preprocessing.MaxAbsScaler)"
        )
