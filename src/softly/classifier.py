"""The scikit-learn face: a softmax classifier that is linear in its features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin, SparseCoefMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from softly import targets
from softly.callbacks import CallbackSupportMixin, Tasks, with_callbacks
from softly.functions import log_softmax, softmax
from softly.inputs import FEATURES, check_fit, prepared
from softly.objective import Objective
from softly.solvers.auto import solve
from softly.solvers.result import Pass
from softly.solvers.stream import Past, learn

Array = NDArray[Any]


class SoftmaxClassifier(
    CallbackSupportMixin,  # type: ignore[misc]
    LinearClassifierMixin,  # type: ignore[misc]
    SparseCoefMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
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
    precision_ : ndarray, shape (P, P), or of the parameters' shape
        After `partial_fit` alone: the Hessian, by P = K (D + 1) parameters, of all that was seen
        and the penalty; of many parameters, its diagonal.
    calibration_ : str
        After `calibrate` alone: what was chosen, and why.
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

    _takes_streams = True

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

    @with_callbacks  # type: ignore[untyped-decorator]
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
        check_fit(C=self.C, l1_ratio=self.l1_ratio, tol=self.tol, max_iter=self.max_iter)
        tasks = Tasks(self, X, y, sample_weight)
        X, y = validate_data(self, X, y, multi_output=True, **FEATURES)
        X = prepared(X)
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
        if self.verbose is True:
            print(f"at most {objective.most_bytes:,} bytes are held beside X")
        result = solve(
            objective,
            self._start(objective, classes),
            tol=self.tol,
            max_iter=self.max_iter,
            on_pass=self._reporter(tasks, X.dtype, classes),
        )
        if not result.converged:
            warnings.warn(result.message, ConvergenceWarning, stacklevel=2)
        self.__dict__.update(self._attributes(result.parameters.astype(X.dtype), classes))
        self.n_iter_ = np.array([result.n_iter], dtype=np.int32)
        self.n_passes_ = result.n_passes
        self.objective_ = result.objective
        self.optimality_gap_ = result.gap
        self.solver_ = result.solver
        for left in ("precision_", "calibration_"):
            self.__dict__.pop(left, None)
        tasks.end()
        return self

    @available_if(lambda self: self._takes_streams)  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> SoftmaxClassifier:
        r"""Learn from some more rows, which need not be kept.

        What earlier rows said is remembered as a quadratic around the coefficients that they led
        to (an online Laplace approximation): after the last batch the coefficients are near those
        of one `fit` to all rows, nearer the larger the batches are. `C` means what it means there,
        however the rows come. Up to 1024 parameters, of K (D + 1), the quadratic is whole, and of
        more parameters it has a curvature for each. Batches are to be drawn by chance: a classifier
        that has seen but one class is sure of it, and slow to learn another.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Features, finite.
        y : array_like, shape (N,)
            Labels, among `classes`.
        classes : array_like, shape (K,)
            All labels there will be: needed with the first batch. After `fit`, of which nothing is
            kept but the classes, a stream begins anew, with a warning.
        sample_weight : array_like, shape (N,), optional
            Weights of the rows, not negative.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the classes are not said with the first batch, y has others, or the classifier has
            an L1 penalty or balanced class weights.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> import softly
        >>> X, y = load_iris(return_X_y=True)
        >>> model = softly.SoftmaxClassifier()
        >>> for rows in np.array_split(np.random.default_rng(0).permutation(150), 5):
        ...     model = model.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
        >>> round(model.score(X, y), 2)
        0.97
        """
        check_fit(C=self.C)
        is_first = not hasattr(self, "precision_")
        self._check_stream()
        X, y = validate_data(self, X, y, reset=is_first, **FEATURES)
        known = targets.read_batch(
            *(X, y, sample_weight, self.class_weight),
            classes=classes,
            known=getattr(self, "classes_", None),
        )
        if is_first and hasattr(self, "coef_"):
            warnings.warn(
                "fit does not keep what its rows said: partial_fit begins anew", stacklevel=2
            )
        past = None if is_first else Past(self._parameters(), self.__dict__["precision_"])
        learnt = learn(prepared(X), known, past, 1 / self.C, self.fit_intercept)
        self.__dict__.update(self._attributes(learnt.past.centre.astype(X.dtype), known.classes))
        self.precision_ = learnt.past.precision
        self.__dict__.pop("calibration_", None)
        self.n_iter_ = np.array([learnt.n_iter], dtype=np.int32)
        self.n_passes_ = learnt.n_passes
        self.objective_, self.optimality_gap_ = np.nan, np.inf
        self.solver_ = "online Laplace"
        return self

    def calibrate(
        self, X: Any, y: Any, *, method: Any = "auto", sample_weight: Any = None
    ) -> SoftmaxClassifier:
        """Make the probabilities right on rows that the fit has not seen.

        The scores of these rows are calibrated as `Calibrator` does it, and what it finds goes into
        `coef_` and `intercept_`: a classifier that is linear stays one.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Features of rows that `fit` was not given.
        y : array_like, shape (N,)
            Their classes, among `classes_`.
        method : str or list of str, default="auto"
            "identity", "temperature", "vector" or "matrix"; or "auto", which chooses among them,
            as it does among those of a list.
        sample_weight : array_like, shape (N,), optional

        Returns
        -------
        self
            With `calibration_`, what was chosen and why, in a sentence.

        Raises
        ------
        ValueError
            If y has other classes, or the method is isotonic, which no coefficients have.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> import softly
        >>> X, y = load_digits(return_X_y=True)
        >>> model = softly.SoftmaxClassifier(C=100).fit(X[:900], y[:900])
        >>> before = model.predict_proba(X[1400:])
        >>> model.calibrate(X[900:1400], y[900:1400], method="temperature").calibration_
        'temperature was asked for'
        >>> bool(model.predict_proba(X[1400:]).max() < before.max())
        True
        """
        from softly.calibration import Calibrator
        from softly.scalings import LINEAR

        asked = [method] if isinstance(method, str) else list(method)
        if "isotonic" in asked:
            raise ValueError(
                "method holds 'isotonic', which no coefficients have: fit IsotonicScaling to the "
                "scores instead"
            )
        calibrator = Calibrator(LINEAR if "auto" in asked else asked, classes=self.classes_)
        calibrator.fit(self._scores(X), y, sample_weight)
        fitted: dict[str, Array] = self.__dict__
        coef, intercept = fitted["coef_"], fitted["intercept_"]
        if len(coef) == 1:  # the first of two classes has score 0
            coef, intercept = (np.concatenate([0 * a, a]) for a in (coef, intercept))
        coef, intercept = calibrator.fold_into(coef, intercept)
        if len(fitted["coef_"]) == 1:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        fitted.update(coef_=coef, intercept_=intercept)
        self.calibration_ = calibrator.reason_
        self.__dict__.pop("precision_", None)  # of a stream's coefficients, which these are not
        self.optimality_gap_ = np.inf  # of the penalised objective, which this is no minimum of
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

    def _check_stream(self) -> None:
        if self.l1_ratio:
            raise ValueError(f"partial_fit needs l1_ratio=0, but it is {self.l1_ratio!r}")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight is 'balanced', but no batch knows how frequent classes are in all: "
                "give a dict to partial_fit's classifier"
            )

    def _attributes(self, parameters: Array, classes: Array) -> dict[str, Array]:
        """What it takes to predict."""
        d = self.n_features_in_
        intercept = (
            parameters[:, -1].copy() if self.fit_intercept else np.zeros_like(parameters[:, 0])
        )
        coef = np.ascontiguousarray(parameters[:, :d])
        return {"classes_": classes, "coef_": coef, "intercept_": intercept}

    def _parameters(self) -> Array:
        """As solvers have them, in float64."""
        parts = [self.coef_, self.intercept_[:, None]] if self.fit_intercept else [self.coef_]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def _start(self, objective: Objective, classes: Array) -> Array:
        start = np.zeros(objective.shape)
        if not (self.warm_start and hasattr(self, "coef_")):
            return start
        if not np.array_equal(self.classes_, classes):
            raise ValueError(
                f"warm_start=True, but the last fit had the classes {self.classes_} and this one "
                f"has {classes}: use a new classifier"
            )
        start[:] = self._parameters()
        return start

    def _reporter(self, tasks: Tasks, dtype: Any, classes: Array) -> Callable[[Pass], None] | None:
        """What a pass is told to: `verbose`, and scikit-learn's callbacks."""
        tell = self.verbose if callable(self.verbose) else _printer() if self.verbose else None
        if not tasks.are_followed:
            return tell

        def on_pass(done: Pass) -> None:
            if tell is not None:
                tell(done)
            tasks.passed(lambda: self._attributes(done.parameters.astype(dtype), classes))

        return on_pass


def _printer() -> Callable[[Pass], None]:
    began = time.perf_counter()

    def line(done: Pass) -> None:
        print(
            f"pass {done.number:.1f}: objective {done.objective:.6f}, "
            f"gap {done.gap:.1e}, {time.perf_counter() - began:.2f} s"
        )

    return line
