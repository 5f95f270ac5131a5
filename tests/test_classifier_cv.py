"""SoftmaxClassifierCV against scikit-learn's own contract and its LogisticRegressionCV."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import accuracy_score, get_scorer, log_loss, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import softly

# To where rounding hides any further progress: weights of 2 must be rows given twice, to 7 digits.
TIGHT = {"tol": 1e-13, "max_iter": 1000}
CS = [0.01, 0.3, 10.0]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
@parametrize_with_checks(
    [
        softly.SoftmaxClassifierCV(Cs=[0.01, 0.1], cv=3, **TIGHT),
        softly.SoftmaxClassifierCV(
            Cs=[0.01, 0.1], cv=3, scoring=None, rule="one_standard_error", **TIGHT
        ),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def iris(classes=3):
    X, y = load_iris(return_X_y=True)
    kept = y >= 3 - classes  # the two that overlap, if two
    return StandardScaler().fit_transform(X[kept]), y[kept]


def digits(classes=4, rows=400):
    X, y = load_digits(n_class=classes, return_X_y=True)
    return X[:rows] / 16, y[:rows]


def theirs(**options):
    return LogisticRegressionCV(
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
        solver="newton-cholesky",
        tol=1e-10,
        max_iter=500,
        **{"Cs": CS, "cv": 5, "scoring": "neg_log_loss"} | options,
    )


@pytest.mark.parametrize("data", [iris(3), iris(2), digits()], ids=["iris", "two", "digits"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit_intercept": False},
        {"class_weight": "balanced", "cv": 3},
        {"scoring": "neg_brier_score", "cv": 3},
        {"scoring": "roc_auc_ovr", "cv": 3},
        {"scoring": None, "cv": ShuffleSplit(4, test_size=0.3, random_state=0)},
    ],
    ids=["plain", "no intercept", "balanced", "brier", "auc", "accuracy"],
)
def test_results_are_those_of_scikit_learn(data, options):
    X, y = data
    ours = softly.SoftmaxClassifierCV(**{"Cs": CS, "cv": 5} | options, tol=1e-9, max_iter=1000).fit(
        X, y
    )
    wanted = theirs(**options).fit(X, y)
    for name in ("scores_", "coefs_paths_", "n_iter_", "Cs_", "l1_ratios_", "coef_", "intercept_"):
        assert getattr(ours, name).shape == getattr(wanted, name).shape, name
    np.testing.assert_allclose(ours.scores_, wanted.scores_, atol=1e-4)
    np.testing.assert_allclose(ours.coefs_paths_, wanted.coefs_paths_, atol=2e-3)
    assert type(ours.C_) is type(ours.l1_ratio_) is float
    assert ours.C_ == wanted.C_
    assert ours.l1_ratio_ == wanted.l1_ratio_
    np.testing.assert_allclose(ours.coef_, wanted.coef_, atol=2e-3)
    np.testing.assert_allclose(ours.predict_proba(X), wanted.predict_proba(X), atol=1e-3)
    assert ours.score(X, y) == pytest.approx(wanted.score(X, y), abs=1e-4)


def test_the_default_tolerance_gives_the_scores_of_a_tight_one():
    X, y = digits(10, 1000)
    rough = softly.SoftmaxClassifierCV().fit(X, y)
    fine = softly.SoftmaxClassifierCV(tol=1e-8, max_iter=1000).fit(X, y)
    assert rough.C_ == fine.C_
    at = np.abs(np.log10(rough.Cs_)) < 2
    np.testing.assert_allclose(rough.mean_scores_[0, at], fine.mean_scores_[0, at], atol=5e-3)


def test_sample_weights_are_those_of_scikit_learn():
    X, y = iris()
    weight = np.random.default_rng(0).uniform(0, 3, len(y))
    weight[::4] = 0
    ours = softly.SoftmaxClassifierCV(CS, cv=4, tol=1e-9, max_iter=1000, class_weight={1: 2.0})
    ours.fit(X, y, sample_weight=weight)
    wanted = theirs(cv=4, class_weight={1: 2.0}).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(ours.scores_, wanted.scores_, atol=1e-4)
    assert ours.C_ == wanted.C_
    assert ours.score(X, y, sample_weight=weight) == pytest.approx(
        wanted.score(X, y, sample_weight=weight), abs=1e-4
    )


def test_rows_of_no_weight_count_for_nothing():
    X, y = iris()
    weight = (np.arange(len(y)) % 4 != 0).astype(float)
    wild = X.copy()
    wild[weight == 0] = 1e3
    kept = np.flatnonzero(weight)
    inner = list(StratifiedKFold(3).split(X[kept], y[kept]))
    none = np.flatnonzero(weight == 0)
    outer = [(np.r_[kept[a], none], np.r_[kept[b], none]) for a, b in inner]
    options = {"tol": 1e-10, "max_iter": 1000}
    left = softly.SoftmaxClassifierCV(CS, cv=outer, **options).fit(wild, y, sample_weight=weight)
    right = softly.SoftmaxClassifierCV(CS, cv=inner, **options).fit(X[kept], y[kept])
    np.testing.assert_allclose(left.scores_, right.scores_, atol=1e-6)
    np.testing.assert_allclose(left.coef_, right.coef_, atol=1e-4)


def test_a_fold_is_a_fit_to_its_rows_alone():
    X, y = iris()
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    search = softly.SoftmaxClassifierCV(CS, cv=folds, tol=1e-10, max_iter=1000).fit(X, y)
    for fold, (train, test) in enumerate(folds):
        for at, C in enumerate(CS):
            cold = softly.SoftmaxClassifier(C=C, tol=1e-10, max_iter=1000).fit(X[train], y[train])
            found = search.coefs_paths_[fold, 0, at]
            np.testing.assert_allclose(found[:, :-1], cold.coef_, atol=1e-3)
            np.testing.assert_allclose(found[:, -1], cold.intercept_, atol=1e-3)
            expected = -log_loss(y[test], cold.predict_proba(X[test]))
            assert search.scores_[fold, 0, at] == pytest.approx(expected, abs=1e-4)


def test_rows_that_come_twice_count_twice():
    X, y = iris()
    train = np.r_[np.arange(150), np.arange(0, 150, 5)]
    test = np.arange(1, 150, 7)
    search = softly.SoftmaxClassifierCV([1.0], cv=[(train, test)], tol=1e-10).fit(X, y)
    alone = softly.SoftmaxClassifier(tol=1e-10).fit(X[train], y[train])
    np.testing.assert_allclose(search.coefs_paths_[0, 0, 0, :, :-1], alone.coef_, atol=1e-4)


def test_folds_as_masks_and_as_any_iterable():
    X, y = iris()
    folds = list(StratifiedKFold(3).split(X, y))
    plain = softly.SoftmaxClassifierCV(CS, cv=folds).fit(X, y)
    rows = np.arange(len(y))
    masks = [(np.isin(rows, a), np.isin(rows, b)) for a, b in folds]
    for cv in (3, StratifiedKFold(3), iter(folds), masks):
        again = softly.SoftmaxClassifierCV(CS, cv=cv).fit(X, y)
        np.testing.assert_array_equal(again.scores_, plain.scores_)


def test_the_last_fit_is_that_of_the_classifier():
    X, y = digits()
    search = softly.SoftmaxClassifierCV(CS, tol=1e-10, max_iter=1000).fit(X, y)
    alone = softly.SoftmaxClassifier(C=search.C_, tol=1e-10, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(search.coef_, alone.coef_, atol=1e-3)
    assert search.objective_ == pytest.approx(alone.objective_, rel=1e-8)
    assert search.optimality_gap_ <= 1e-9
    assert type(search.best_estimator_) is softly.SoftmaxClassifier
    assert search.best_estimator_.get_params() == alone.get_params()
    np.testing.assert_array_equal(search.best_estimator_.predict(X), search.predict(X))


def test_standard_errors_and_their_rule():
    X, y = digits()
    grid = np.geomspace(1e-2, 1e2, 9)
    best = softly.SoftmaxClassifierCV(grid).fit(X, y)
    np.testing.assert_allclose(best.mean_scores_, best.scores_.mean(axis=0))
    np.testing.assert_allclose(best.standard_errors_, best.scores_.std(axis=0, ddof=1) / np.sqrt(5))
    means, errors = best.mean_scores_[0], best.standard_errors_[0]
    assert means.argmax() == list(grid).index(best.C_)
    least = means.max() - errors[means.argmax()]
    expected = min(C for C, mean in zip(grid, means, strict=True) if mean >= least)
    simple = softly.SoftmaxClassifierCV(grid, rule="one_standard_error").fit(X, y)
    assert simple.C_ == expected < best.C_
    order = np.arange(9)[::-1]
    mixed = softly.SoftmaxClassifierCV(grid[order], rule="one_standard_error").fit(X, y)
    assert mixed.C_ == simple.C_
    np.testing.assert_array_equal(mixed.scores_, simple.scores_[..., order])


def test_one_fold_has_no_standard_error():
    X, y = iris()
    once = ShuffleSplit(1, random_state=0)
    search = softly.SoftmaxClassifierCV(CS, cv=once).fit(X, y)
    assert np.isnan(search.standard_errors_).all()
    with pytest.raises(ValueError, match="one_standard_error' needs two folds or more"):
        softly.SoftmaxClassifierCV(CS, cv=once, rule="one_standard_error").fit(X, y)


def test_l1_ratios():
    X, y = iris()
    search = softly.SoftmaxClassifierCV([0.05, 1.0], l1_ratios=[0.0, 1.0], cv=3).fit(X, y)
    assert search.scores_.shape == search.n_iter_.shape == (3, 2, 2)
    assert search.coefs_paths_.shape == (3, 2, 2, 3, 5)
    assert search.mean_scores_.shape == search.standard_errors_.shape == (2, 2)
    assert not search.coefs_paths_[:, 1, 0, :, :4].all()
    assert search.coefs_paths_[:, 0, 0, :, :4].all()
    alone = softly.SoftmaxClassifierCV([0.05, 1.0], l1_ratios=[1.0], cv=3).fit(X, y)
    np.testing.assert_allclose(alone.scores_[:, 0], search.scores_[:, 1], atol=1e-6)


def test_a_scorer_of_ones_own_has_the_held_out_rows():
    X, y = iris()
    seen = []

    def scorer(estimator, X, y):
        seen.append(X)
        return accuracy_score(y, estimator.predict(X))

    folds = list(StratifiedKFold(3, shuffle=True, random_state=1).split(X, y))
    ours = softly.SoftmaxClassifierCV(CS, cv=folds, scoring=scorer).fit(X, y)
    assert len(seen) == 9
    np.testing.assert_array_equal(seen[0], X[folds[0][1]])
    plain = softly.SoftmaxClassifierCV(CS, cv=folds, scoring="accuracy").fit(X, y)
    np.testing.assert_array_equal(ours.scores_, plain.scores_)


def test_a_score_that_is_no_number_is_never_best():
    X, y = iris()
    scores = iter([np.nan, 1.0, 2.0] * 5)
    search = softly.SoftmaxClassifierCV(CS, scoring=lambda *_: next(scores)).fit(X, y)
    assert search.C_ == 10.0


def test_a_tie_goes_to_the_first():
    search = softly.SoftmaxClassifierCV([3.0, 1.0, 2.0], scoring=lambda *_: 0.5).fit(*iris())
    assert search.C_ == 3.0


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_a_class_with_fewer_rows_than_folds():
    X, y = iris()
    X, y = np.r_[X, [[9.0] * 4]], np.r_[y, 7]
    search = softly.SoftmaxClassifierCV(CS).fit(X, y)
    assert np.isfinite(search.scores_).all()
    assert search.coefs_paths_.shape == (5, 1, 3, 4, 5)
    assert search.predict_proba(X).shape == (151, 4)


@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_a_fold_of_one_class_says_what_to_do():
    X, y = iris(2)
    with pytest.raises(ValueError, match=r"rows of fold 1 of 3 are of the class .* only.*fewer"):
        softly.SoftmaxClassifierCV(CS, cv=3).fit(X[49:], y[49:])
    weight = (y == 1) * 1.0
    weight[-1] = 1.0
    with pytest.raises(ValueError, match="only, but two or more are needed"):
        softly.SoftmaxClassifierCV(CS, cv=3).fit(X, y, sample_weight=weight)
    with pytest.raises(ValueError, match="of no class, but two or more"):
        softly.SoftmaxClassifierCV(CS, cv=[([], [1, 2])]).fit(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Cs": []}, r"Cs is \[\], but a whole number from 1 up, or a list of numbers above 0"),
        ({"Cs": [0.1, -1]}, r"Cs is \[0.1, -1\], but"),
        ({"Cs": 0}, "Cs is 0, but"),
        ({"Cs": "many"}, "Cs is 'many', but"),
        ({"l1_ratios": []}, r"l1_ratios is \[\], but a list of numbers from 0 to 1"),
        ({"l1_ratios": None}, "l1_ratios is None, but"),
        ({"l1_ratios": [2.0]}, r"l1_ratios is \[2.0\], but"),
        ({"rule": "1se"}, "rule is '1se', but one of best, one_standard_error"),
        ({"tol": -1.0}, "tol is -1.0, but"),
        ({"max_iter": 0}, "max_iter is 0, but"),
        ({"cv": []}, "cv gives no folds"),
        ({"cv": 60}, "n_splits=60 cannot be greater than the number of members"),
        ({"scoring": "wrong"}, "wrong"),
    ],
)
def test_parameters_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        softly.SoftmaxClassifierCV(**options).fit(*iris())


def test_labels_that_make_no_sense():
    X, y = iris()
    with pytest.raises(ValueError, match="one class only"):
        softly.SoftmaxClassifierCV().fit(X, np.zeros(len(y)))
    with pytest.raises(ValueError, match="1d array"):
        softly.SoftmaxClassifierCV().fit(X, np.eye(3)[y])


def test_a_search_that_stops_early_warns_once():
    X, y = digits()
    with pytest.warns(ConvergenceWarning) as caught:
        softly.SoftmaxClassifierCV(CS, max_iter=1, tol=1e-9).fit(X, y)
    folds = [str(w.message) for w in caught if "of the folds" in str(w.message)]
    assert folds == [
        "15 of the 15 fits of the folds stopped above the tolerance: raise max_iter (now 1) or "
        "tol, or leave out the largest Cs"
    ]


def test_groups_and_weights_are_routed():
    X, y = iris()
    groups = np.arange(len(y)) % 4
    weight = np.random.default_rng(0).uniform(size=len(y))
    with pytest.raises(ValueError, match="enable_metadata_routing"):
        softly.SoftmaxClassifierCV(CS, cv=GroupKFold(4)).fit(X, y, groups=groups)
    given = list(LeaveOneGroupOut().split(X, y, groups))
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(log_loss, greater_is_better=False, response_method="predict_proba")
        search = softly.SoftmaxClassifierCV(
            CS, cv=LeaveOneGroupOut(), scoring=scorer.set_score_request(sample_weight=True)
        ).set_fit_request(sample_weight=True)
        search.fit(X, y, sample_weight=weight, groups=groups)
        score = search.score(X, y, sample_weight=weight)
        unweighted = softly.SoftmaxClassifierCV(
            CS,
            cv=LeaveOneGroupOut(),
            scoring=get_scorer("neg_log_loss").set_score_request(sample_weight=False),
        ).set_fit_request(sample_weight=True)
        unweighted.fit(X, y, sample_weight=weight, groups=groups)
    plain = softly.SoftmaxClassifierCV(CS, cv=given).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(search.scores_, plain.scores_)
    assert score == plain.score(X, y, sample_weight=weight)
    np.testing.assert_array_equal(unweighted.coefs_paths_, plain.coefs_paths_)
    assert not np.allclose(unweighted.scores_, plain.scores_)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_name_the_features(library):
    frame = pytest.importorskip(library).DataFrame
    X, y = iris()
    named = frame({name: X[:, j] for j, name in enumerate("abcd")})
    search = softly.SoftmaxClassifierCV(CS).fit(named, y)
    assert list(search.feature_names_in_) == list("abcd")
    plain = softly.SoftmaxClassifierCV(CS).fit(X, y)
    np.testing.assert_array_equal(search.predict(named), plain.predict(X))


def test_labels_of_any_kind_and_sparse_rows():
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)[y]
    plain = softly.SoftmaxClassifierCV(CS, tol=1e-6).fit(X, y)
    named = softly.SoftmaxClassifierCV(CS, tol=1e-6).fit(X, names)
    np.testing.assert_array_equal(named.scores_, plain.scores_)
    assert list(named.predict(X[:1])) == ["setosa"]
    sparse = softly.SoftmaxClassifierCV(CS, tol=1e-6).fit(sp.csr_array(X), y)
    np.testing.assert_allclose(sparse.scores_, plain.scores_, atol=1e-3)
    narrow = softly.SoftmaxClassifierCV(CS, tol=1e-6).fit(X.astype(np.float32), y)
    assert narrow.coefs_paths_.dtype == narrow.coef_.dtype == np.float32
    np.testing.assert_allclose(narrow.scores_, plain.scores_, atol=1e-3)


def test_inside_scikit_learn():
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), softly.SoftmaxClassifierCV(CS, cv=3))
    search = GridSearchCV(
        model, {"softmaxclassifiercv__rule": ["best", "one_standard_error"]}, cv=3
    )
    assert search.fit(X, y).best_score_ > -0.12
    fitted = search.best_estimator_
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert clone(model[-1]).get_params() == model[-1].get_params()


def test_what_a_search_says_of_itself(capsys):
    X, y = iris()
    steps = []
    softly.SoftmaxClassifierCV(CS, l1_ratios=[0.0, 0.0], cv=3, verbose=steps.append).fit(X, y)
    places = list(dict.fromkeys((s.fold, s.fit) for s in steps))
    assert places == [*((fold, fit) for fold in (1, 2, 3) for fit in range(1, 7)), (0, 6)]
    assert [s.share for s in steps] == sorted(s.share for s in steps)
    assert steps[-1].share == 1.0
    assert {s.C for s in steps} == set(CS)
    softly.SoftmaxClassifierCV(CS, cv=3, verbose=True).fit(X, y)
    out = capsys.readouterr().out
    assert out.startswith("fold 1 of 3, fit 1 of 3 (C 0.01), pass 1, loss 1.0986\n".rstrip("\n"))
    assert "all rows (C 10), pass" in out
    assert pickle.loads(pickle.dumps(softly.SoftmaxClassifierCV(CS).fit(X, y))).C_ == 10.0
