"""A softmax classifier whose penalty is chosen by cross-validation."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch, metadata_routing
from sklearn.utils._metadata_requests import _raise_for_params, _routing_enabled
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_method_params, validate_data

from softly import targets
from softly.callbacks import Tasks, with_callbacks
from softly.classifier import SoftmaxClassifier
from softly.inputs import FEATURES, check_fit, prepared
from softly.path import along, grid_of, objective_of
from softly.solvers.result import Pass
from softly.targets import Targets

Array = NDArray[Any]

_RULES = ("best", "one_standard_error")


@dataclass(frozen=True)
class SearchStep:
    """How far a search is, told at each pass over the data.

    Attributes
    ----------
    fold, n_folds : int
        Which fold, from 1 up, and of how many; fold 0 is the last fit, to all rows.
    fit, n_fits : int
        Which penalty, from 1 up, and of how many in a fold.
    C : float
    at : Pass
    """

    fold: int
    n_folds: int
    fit: int
    n_fits: int
    C: float
    at: Pass

    @property
    def share(self) -> float:
        """How much of the search is done: its share of all fits."""
        if self.fold == 0:
            return 1.0
        return (self.fold - 1 + (self.fit - 1) / self.n_fits) / self.n_folds

    def __str__(self) -> str:
        of = f"fold {self.fold} of {self.n_folds}, fit {self.fit} of {self.n_fits}"
        where = f"{of} (C {self.C:.3g})" if self.fold else f"all rows (C {self.C:.3g})"
        return f"{where}, pass {self.at.number:.5g}, loss {self.at.objective:.5f}"


@dataclass(frozen=True)
class _FoldFits:
    """What one fold gives; each array begins with the l1 ratios and the C's."""

    coefs: Array
    scores: Array
    n_iter: Array
    converged: Array


@dataclass(frozen=True)
class _Search:
    """All that the folds of a search share."""

    X: Any
    y: Array
    known: Targets
    Cs: Array
    l1_ratios: Array
    folds: list[tuple[Array, Array]]
    scorer: Any
    score_params: dict[str, Any]
    fit_intercept: bool
    tol: float
    max_iter: int
    on_step: Callable[[SearchStep], None] | None

    def fit_fold(self, fold: int) -> _FoldFits:
        """The paths of one fold, one for each l1 ratio, and their scores on the fold's rows."""
        train, test = self.folds[fold]
        weight = self._weight(fold, train)
        objective = objective_of(self.X, self.known, weight, self.fit_intercept)
        shape = len(self.l1_ratios), len(self.Cs)
        fits = _FoldFits(
            coefs=np.empty((*shape, *objective.shape), self.X.dtype),
            scores=np.empty(shape),
            n_iter=np.empty(shape, np.int32),
            converged=np.empty(shape, bool),
        )
        for i, l1_ratio in enumerate(self.l1_ratios.tolist()):
            path = along(
                *(objective, self.Cs, l1_ratio),
                tol=self.tol,
                max_iter=self.max_iter,
                proof=False,  # a choice among C's needs none; the last fit has one
                on_pass=partial(self._tell, fold, i) if self.on_step else None,
            )
            for at, result in path:
                fits.coefs[i, at] = result.parameters
                fits.n_iter[i, at], fits.converged[i, at] = result.n_iter, result.converged
        score = self._score_of(test)  # only now: it may hold a copy of the fold's rows
        for place in np.ndindex(shape):
            fits.scores[place] = score(fits.coefs[place])
        return fits

    def _weight(self, fold: int, train: Array) -> NDArray[np.float64]:
        """What each row counts: 0 if it is held out."""
        weight = np.bincount(train, minlength=len(self.y)).astype(np.float64)
        if self.known.weight is not None:
            weight *= self.known.weight
        held = np.unique(self.known.values[weight > 0])
        if len(held) < 2:
            raise ValueError(
                f"the training rows of fold {fold + 1} of {len(self.folds)} are of "
                f"{f'the class {self.known.classes[held[0]]!r} only' if len(held) else 'no class'},"
                " but two or more are needed: take fewer folds, or folds stratified by class"
            )
        return weight

    def _score_of(self, test: Array) -> Callable[[Array], float]:
        """A function from parameters to their score on held-out rows."""
        params = _check_method_params(self.X, params=self.score_params, indices=test)
        scorer = _for_classes(self.scorer, self.known.classes)
        rows, truth = self.X[_as_slice(test)], self.y[test]
        model = SoftmaxClassifier(fit_intercept=self.fit_intercept)

        def score(parameters: Array) -> float:
            _set_parameters(model, self.known.classes, parameters, self.X.shape[1])
            return float(scorer(model, rows, truth, **params))

        return score

    def _tell(self, fold: int, ratio: int, C: float, at: Pass) -> None:
        fit = 1 + ratio * len(self.Cs) + int(np.searchsorted(np.sort(self.Cs), C))
        n_fits = len(self.l1_ratios) * len(self.Cs)
        assert self.on_step is not None
        self.on_step(SearchStep(fold + 1, len(self.folds), fit, n_fits, C, at))


class SoftmaxClassifierCV(SoftmaxClassifier):
    r"""`SoftmaxClassifier` with its penalty chosen by cross-validation.

    For each fold, the classifier is fitted to the other folds' rows along a path of penalties, from
    strong to weak, each fit from the coefficients of the one before, and scored on the fold's own
    rows. A last fit, to all rows, has the penalty whose mean score is best. It is scikit-learn's
    `LogisticRegressionCV` with the results in its present layout (``use_legacy_attributes=False``).

    Parameters
    ----------
    Cs : int or array_like of float, shape (P,), default=10
        Inverse strengths of the penalty; a number P stands for P of them from 1e-4 to 1e4, evenly
        on the logarithm's scale.
    l1_ratios : array_like of float, shape (R,), default=(0.0,)
        From 0 to 1 each: how much of the penalty is that of the coefficients' sizes. All pairs with
        `Cs` are tried.
    fit_intercept : bool, default=True
        Whether each class has an intercept.
    cv : int, splitter or iterable of (train, test), default=None
        The number of folds, the same share of each class in all (None: 5); or how rows are split,
        as scikit-learn takes it. Rows that come twice in `train` count twice.
    scoring : str, callable or None, default="neg_log_loss"
        What is best: a score of scikit-learn's, or a callable ``scorer(estimator, X, y)``; None is
        accuracy.
    rule : {"best", "one_standard_error"}, default="best"
        The second takes the strongest penalty whose mean score is at most one standard error below
        the best one, at the best one's `l1_ratio` (Breiman et al., 1984): a simpler model that
        cannot be told from the best.
    tol : float, default=1e-4
        For the folds as in `regularization_path`: a part of the loss of guessing by frequencies;
        for the last fit as in `SoftmaxClassifier`: a part of its objective.
    max_iter : int, default=100
        The most iterations of each fit; a search in which one needs more warns once with a
        `ConvergenceWarning`.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class; ``"balanced"`` weighs classes alike, by all rows.
    n_jobs : int, default=None
        Of no effect, for scikit-learn's callers: a fit takes all processors as it is, and folds
        that run side by side would only wait for each other.
    verbose : bool or callable, default=False
        True prints a line for each pass over the data; a callable is given a `SearchStep` instead.

    Attributes
    ----------
    classes_ : ndarray, shape (K,)
    coef_ : ndarray, shape (K, D), or (1, D) for two classes
    intercept_ : ndarray, shape (K,) or (1,)
    C_, l1_ratio_ : float
        Those chosen.
    Cs_ : ndarray, shape (P,)
    l1_ratios_ : ndarray, shape (R,)
    scores_ : ndarray, shape (F, R, P)
        Of each of F folds.
    mean_scores_, standard_errors_ : ndarray, shape (R, P)
        Over the folds; a standard error is the folds' standard deviation (with F - 1 in it) by the
        root of F, and NaN for one fold.
    coefs_paths_ : ndarray, shape (F, R, P, K, D + 1), or (F, R, P, 1, D + 1) for two classes
        The intercept last; D wide without one.
    n_iter_ : ndarray of int, shape (F, R, P)
    best_estimator_ : SoftmaxClassifier
        The last fit, to all rows; `n_passes_`, `objective_`, `optimality_gap_` and `solver_` are
        its own.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where `X` had column names.

    Notes
    -----
    All folds read one X: a fold's training rows are those of a weight above 0, and the only rows
    that are copied are those held out, of one fold at a time, to be scored. A copy of each fold's
    training rows would make `cv` = 5 at most a fifth faster.

    The fits of a fold never start from another fold's coefficients, which have seen its rows.

    A class that a fold's training rows lack has no finite intercept there: it ends where its rows
    weigh nothing any more, and the fold's rows of that class score the worst there is.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> import softly
    >>> X, y = load_iris(return_X_y=True)
    >>> search = softly.SoftmaxClassifierCV(Cs=[0.01, 1, 100]).fit(X, y)
    >>> search.C_
    100.0
    >>> search.scores_.shape
    (5, 1, 3)
    >>> search.mean_scores_.round(2)
    array([[-0.64, -0.14, -0.06]])
    """

    _takes_streams = False  # folds need all rows at once

    # As scikit-learn has it, for its `score` takes what the scorer takes.
    __metadata_request__score = {"sample_weight": metadata_routing.UNUSED}  # noqa: RUF012

    def __init__(
        self,
        Cs: Any = 10,
        *,
        l1_ratios: Any = (0.0,),
        fit_intercept: bool = True,
        cv: Any = None,
        scoring: Any = "neg_log_loss",
        rule: str = "best",
        tol: float = 1e-4,
        max_iter: int = 100,
        class_weight: Any = None,
        n_jobs: int | None = None,
        verbose: bool | Callable[[SearchStep], None] = False,
    ) -> None:
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.scoring = scoring
        self.rule = rule
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.verbose: Any = verbose

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> SoftmaxClassifierCV:
        """Choose the penalty, and fit to all rows.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
            Features, finite.
        y : array_like, shape (N,)
            Classes: any labels, at least two different ones.
        sample_weight : array_like, shape (N,), optional
            Weights of the rows, not negative; the scorer has them, too, unless metadata routing is
            on and says otherwise.
        **params : dict
            For the splitter and the scorer, such as `groups`, by scikit-learn's metadata routing.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds NaN or infinity, y or the training rows of a fold one class only, or a
            parameter makes no sense.
        """
        _raise_for_params(params, self, "fit")
        l1_ratios = self._check_search()
        Cs = grid_of(self.Cs)
        tasks = Tasks(self, X, y, sample_weight)
        X, y = validate_data(self, X, y, **FEATURES)
        X = prepared(X)
        check_classification_targets(y)
        known = targets.read(X, y, sample_weight, self.class_weight)
        routed = self._routed(sample_weight, params)
        splits = check_cv(self.cv, y, classifier=True).split(X, y, **routed.splitter)
        told = self._listener(tasks)
        search = _Search(
            *(X, y, known, Cs, l1_ratios, _folds(splits, len(y)), self._scorer(), routed.scorer),
            *(self.fit_intercept, self.tol, self.max_iter, told),
        )
        fits = [search.fit_fold(fold) for fold in range(len(search.folds))]
        self.classes_, self.Cs_, self.l1_ratios_ = known.classes, Cs, l1_ratios
        self.coefs_paths_ = np.stack([one.coefs for one in fits])
        self.scores_ = np.stack([one.scores for one in fits])
        self.n_iter_ = np.stack([one.n_iter for one in fits])
        self.mean_scores_ = self.scores_.mean(axis=0)
        self.standard_errors_ = _standard_errors(self.scores_)
        _warn_of_short_fits(np.stack([one.converged for one in fits]), self.max_iter)
        ratio, C = _chosen(self.mean_scores_, self.standard_errors_, Cs, self.rule)
        self.l1_ratio_, self.C_ = float(l1_ratios[ratio]), float(Cs[C])
        start = self.coefs_paths_[:, ratio, C].mean(axis=0)
        self._keep(self._fit_to_all(X, y, sample_weight, start, told))
        tasks.end()
        return self

    def score(self, X: Any, y: Any, *, sample_weight: Any = None, **score_params: Any) -> float:
        """The score of `scoring` on labelled rows.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (N, D)
        y : array_like, shape (N,)
        sample_weight : array_like, shape (N,), optional
        **score_params : dict
            For the scorer, by scikit-learn's metadata routing.

        Returns
        -------
        float
        """
        _raise_for_params(score_params, self, "score")
        if sample_weight is not None:
            score_params["sample_weight"] = sample_weight
        if _routing_enabled():
            score_params = process_routing(self, "score", **score_params).scorer.score
        return self._scorer()(self, X, y, **score_params)  # type: ignore[no-any-return]

    def get_metadata_routing(self) -> Any:
        """Which of `fit` and `score`'s further arguments go to the splitter and the scorer.

        Returns
        -------
        MetadataRouter
        """
        to_score = MethodMapping().add(caller="score", callee="score")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                splitter=check_cv(self.cv),
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
            .add(
                scorer=self._scorer(),
                method_mapping=to_score.add(caller="fit", callee="score"),
            )
        )

    def _check_search(self) -> NDArray[np.float64]:
        """Check all parameters but Cs; the l1 ratios."""
        if self.rule not in _RULES:
            raise ValueError(f"rule is {self.rule!r}, but one of {', '.join(_RULES)} is needed")
        try:
            ratios = np.asarray(self.l1_ratios, dtype=np.float64)
        except (TypeError, ValueError):
            ratios = np.empty(0)
        if ratios.ndim != 1 or not len(ratios) or not ((ratios >= 0) & (ratios <= 1)).all():
            raise ValueError(
                f"l1_ratios is {self.l1_ratios!r}, but a list of numbers from 0 to 1 is needed"
            )
        check_fit(tol=self.tol, max_iter=self.max_iter)
        return ratios

    def _routed(self, sample_weight: Any, params: dict[str, Any]) -> Bunch:
        """What the splitter and the scorer are given beside X and y."""
        if _routing_enabled():
            routed = process_routing(self, "fit", sample_weight=sample_weight, **params)
            return Bunch(splitter=routed.splitter.split, scorer=routed.scorer.score)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return Bunch(splitter={}, scorer=weights)

    def _scorer(self) -> Any:
        return get_scorer("accuracy" if self.scoring is None else self.scoring)

    def _listener(self, tasks: Tasks) -> Callable[[SearchStep], None] | None:
        """What a step is told to: `verbose`, and scikit-learn's callbacks."""
        tell = self.verbose if callable(self.verbose) else print if self.verbose else None
        if not tasks.are_followed:
            return tell

        def on_step(step: SearchStep) -> None:
            if tell is not None:
                tell(step)
            tasks.passed()

        return on_step

    def _fit_to_all(
        self,
        X: Any,
        y: Array,
        sample_weight: Any,
        start: Array,
        told: Callable[[SearchStep], None] | None,
    ) -> SoftmaxClassifier:
        n_folds, n_fits = len(self.scores_), self.scores_[0].size

        def on_pass(at: Pass) -> None:
            assert told is not None
            told(SearchStep(0, n_folds, n_fits, n_fits, self.C_, at))

        best = SoftmaxClassifier(
            C=self.C_,
            l1_ratio=self.l1_ratio_,
            fit_intercept=self.fit_intercept,
            class_weight=self.class_weight,
            tol=self.tol,
            max_iter=self.max_iter,
            warm_start=True,
            verbose=on_pass if told else False,
        )
        _set_parameters(best, self.classes_, start, X.shape[1])
        best.fit(X, y, sample_weight)
        return best.set_params(warm_start=False, verbose=False)  # type: ignore[no-any-return]

    def _keep(self, best: SoftmaxClassifier) -> None:
        self.best_estimator_ = best
        self.coef_, self.intercept_ = best.coef_, best.intercept_
        self.n_passes_, self.solver_ = best.n_passes_, best.solver_
        self.objective_, self.optimality_gap_ = best.objective_, best.optimality_gap_


def _folds(splits: Any, n_rows: int) -> list[tuple[Array, Array]]:
    """Row numbers of each fold, whatever numpy takes for rows."""
    rows = np.arange(n_rows)
    folds = [(rows[train], rows[test]) for train, test in splits]
    if not folds:
        raise ValueError("cv gives no folds, but one or more are needed")
    return folds


def _as_slice(rows: Array) -> Any:
    """Rows that follow each other need no copy."""
    follow = len(rows) > 0 and (np.diff(rows) == 1).all()
    return slice(int(rows[0]), int(rows[-1]) + 1) if follow else rows


def _set_parameters(
    model: SoftmaxClassifier, classes: Array, parameters: Array, n_features: int
) -> None:
    model.classes_ = classes
    model.coef_ = parameters[:, :n_features]
    model.intercept_ = (
        parameters[:, -1] if model.fit_intercept else np.zeros(len(parameters), parameters.dtype)
    )
    model.n_features_in_ = n_features


def _for_classes(scorer: Any, classes: Array) -> Any:
    """The scorer for all classes, for a fold's rows may lack some."""
    takes = inspect.signature(getattr(scorer, "_score_func", len)).parameters
    if "labels" not in takes:
        return scorer
    known: dict[str, Any] = {"labels": classes}
    if len(classes) == 2 and "pos_label" in takes:
        known["pos_label"] = classes[1]
    return make_scorer(
        scorer._score_func,
        response_method=scorer._response_method,
        greater_is_better=scorer._sign == 1,
        **known | scorer._kwargs,
    )


def _standard_errors(scores: Array) -> Array:
    if len(scores) == 1:
        return np.full(scores.shape[1:], np.nan)
    error: Array = scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
    return error


def _chosen(means: Array, errors: Array, Cs: Array, rule: str) -> tuple[int, int]:
    """The places of the l1 ratio and the C that a rule takes; of equals, the first C's."""
    means = np.where(np.isnan(means), -np.inf, means)
    C, ratio = np.unravel_index(means.T.argmax(), means.T.shape)
    if rule == "one_standard_error":
        if np.isnan(errors[ratio, C]):
            raise ValueError(
                "rule='one_standard_error' needs two folds or more, whose scores are numbers: "
                "one fold has no standard error; use rule='best'"
            )
        near = means[ratio] >= means[ratio, C] - errors[ratio, C]
        C = np.where(near, Cs, np.inf).argmin()
    return int(ratio), int(C)


def _warn_of_short_fits(converged: Array, max_iter: int) -> None:
    short = converged.size - np.count_nonzero(converged)
    if short:
        warnings.warn(
            f"{short} of the {converged.size} fits of the folds stopped above the tolerance: raise "
            f"max_iter (now {max_iter}) or tol, or leave out the largest Cs",
            ConvergenceWarning,
            stacklevel=3,
        )
