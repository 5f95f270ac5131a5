"""Each rule against its definition, and the reasons that it gives."""

import numpy as np
import pytest

import softly
from softly.decisions import decide, estimate_prior

P = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.05, 0.15, 0.8]])
NAMES = ["cat", "dog", "owl"]


def test_the_most_probable():
    found = decide(P, classes=NAMES)
    assert found.answers.tolist() == [0, 0, 2]
    assert found.labels == ["cat", "cat", "owl"]
    assert len(found) == 3
    assert found.why(0) == "cat 0.7, before dog 0.2, owl 0.1 (the most probable)"


def test_scores_decide_where_rounding_made_a_tie():
    scores = np.array([[0.0, 1e-17 + 3e-16, -50.0]])
    p = np.array([[0.5, 0.5, 0.0]])
    assert decide(p).answers[0] == 0
    assert decide(p, scores=scores).answers[0] == 1
    assert decide(p, scores=scores, top_k=2).answers.tolist() == [[1, 0]]


def test_the_best_few():
    found = decide(P, top_k=2, classes=NAMES)
    assert found.labels == [["cat", "dog"], ["cat", "dog"], ["owl", "dog"]]
    assert found.why(2) == "owl 0.8, dog 0.15, before cat 0.05 (the 2 most probable)"
    assert decide(P, top_k=3).why(0).startswith("0 0.7, 1 0.2, 2 0.1 (")


def test_abstaining_below_a_probability():
    found = decide(P, min_probability=0.5, classes=NAMES)
    assert found.answers.tolist() == [0, -1, 2]
    assert found.labels == ["cat", None, "owl"]
    assert "no answer" in found.why(1)
    assert decide(P, min_probability=0.4).answers.tolist() == [0, 0, 2]


def test_the_least_mean_cost():
    cost = np.array([[0, 1, 1], [1, 0, 1], [20, 20, 0.0]])  # a missed owl is dear
    found = decide(P, cost=cost, classes=NAMES)
    assert found.answers.tolist() == [2, 2, 2]
    assert found.why(0) == (
        "answering owl costs 0.9 on average, the least; the most probable are cat 0.7, dog 0.2, "
        "owl 0.1 (the least mean cost)"
    )
    np.testing.assert_array_equal(decide(P, cost=1 - np.eye(3)).answers, decide(P).answers)


def test_abstaining_at_a_cost_is_chows_rule():
    found = decide(P, cost=1 - np.eye(3), abstain_cost=0.35)
    assert found.answers.tolist() == [0, -1, 2]  # where 1 - p is above the cost
    assert found.why(1).startswith("no answer: it costs 0.35, and answering 0 costs 0.6")


def test_new_class_frequencies():
    found = decide(P, prior=[0.1, 0.8, 0.1], trained_prior=[1 / 3] * 3, classes=NAMES)
    expected = P * [0.1, 0.8, 0.1]
    np.testing.assert_allclose(
        found.probabilities, expected / expected.sum(axis=1, keepdims=True), rtol=1e-12
    )
    assert found.answers.tolist() == [1, 1, 1]
    assert found.why(0).endswith("(the most probable, by new class frequencies)")
    same = decide(P, prior=[0.2, 0.5, 0.3], trained_prior=[0.2, 0.5, 0.3])
    np.testing.assert_allclose(same.probabilities, P, rtol=1e-12)


def test_class_frequencies_are_estimated():
    rng = np.random.default_rng(0)
    means = 1.5 * np.eye(3)
    new = np.array([0.7, 0.2, 0.1])
    y = rng.choice(3, 20_000, p=new)
    x = means[y] + rng.normal(size=(20_000, 3))
    p = softly.softmax(x @ means.T - (means**2).sum(axis=1) / 2, axis=1)  # under equal ones
    np.testing.assert_allclose(estimate_prior(p, [1 / 3] * 3), new, atol=0.02)
    found = decide(p, prior="estimate", trained_prior=[1 / 3] * 3)
    assert (found.answers == y).mean() > (p.argmax(axis=1) == y).mean() + 0.02


def test_a_class_that_is_gone():
    found = decide(P, prior=[0.5, 0.5, 0], trained_prior=[1 / 3] * 3)
    assert (found.probabilities[:, 2] == 0).all()
    sure = decide([[0.0, 0.0, 1.0]], prior=[0.5, 0.5, 0], trained_prior=[1 / 3] * 3)
    np.testing.assert_array_equal(sure.probabilities, [[0, 0, 1]])


def test_sets_of_classes():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.5, (3000, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    p = softly.softmax(z, axis=1)
    found = decide(
        p[2000:],
        coverage=0.9,
        held_out=(p[:2000], np.array(NAMES)[y[:2000]]),
        classes=NAMES,
    )
    assert found.answers.shape == (1000, 3)
    assert found.answers[np.arange(1000), y[2000:]].mean() == pytest.approx(0.9, abs=0.03)
    assert found.labels[0] == [n for n, there in zip(NAMES, found.answers[0], strict=True) if there]
    assert found.why(0).endswith("(sets that hold the true class in 0.9 of all cases)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 0}, "top_k is 0, but a whole number from 1 to 3"),
        ({"top_k": 4}, "top_k is 4"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_k": True}, "top_k is True"),
        ({"top_k": "all"}, "top_k is 'all'"),
        ({"min_probability": "half"}, "min_probability is 'half'"),
        ({"cost": "dear"}, "cost is 'dear', but an array of numbers is needed"),
        ({"cost": np.eye(3), "abstain_cost": "dear"}, "abstain_cost is 'dear'"),
        ({"prior": ["a", "b", "c"], "trained_prior": [1 / 3] * 3}, "prior is .*array of numbers"),
        ({"coverage": "0.9", "held_out": (P, [0, 1, 2])}, "coverage is '0.9', but a number"),
        ({"coverage": 0.9, "held_out": 5}, "held_out is of type int, but a pair"),
        ({"min_probability": 1.5}, "min_probability is 1.5, but a number from 0 to 1"),
        ({"min_probability": float("nan")}, "min_probability is nan"),
        ({"cost": np.eye(2)}, r"cost has shape \(2, 2\), but \(3, 3\) is needed"),
        ({"cost": np.full((3, 3), np.nan)}, "cost holds NaN"),
        ({"cost": np.eye(3), "abstain_cost": np.inf}, "abstain_cost is inf"),
        ({"abstain_cost": 1.0}, "abstain_cost is given, but not cost"),
        ({"trained_prior": [1 / 3] * 3}, "trained_prior is given, but not prior"),
        ({"held_out": (P, [0, 1, 2])}, "held_out is given, but not coverage"),
        ({"coverage": 0.9}, "coverage needs rows that neither"),
        ({"prior": [0.5, 0.5, 0]}, "prior needs trained_prior"),
        ({"prior": [0.5, 0.5], "trained_prior": [1 / 3] * 3}, "prior is .*but 3 numbers"),
        ({"prior": [1, 1, 1], "trained_prior": [1 / 3] * 3}, "sum to 1"),
        ({"prior": "guess", "trained_prior": [1 / 3] * 3}, "prior is 'guess'"),
        ({"prior": [1 / 3] * 3, "trained_prior": [0.5, 0.5, 0]}, "nothing was learnt"),
        ({"top_k": 2, "cost": np.eye(3)}, "top_k and cost are given, but one rule decides"),
        ({"classes": ["a", "b"]}, r"classes has shape \(2,\) and .*, but \(3,\)"),
        ({"classes": ["a", "b", "a"]}, "2 different labels"),
        ({"scores": -np.log(P)}, r"scores\[0\] are highest for column \d, but p\[0\] for column"),
        ({"scores": np.zeros((2, 3))}, r"scores has shape \(2, 3\), but p has \(3, 3\)"),
        ({"coverage": 1.2, "held_out": (P, [0, 1, 2])}, "between 0 and 1"),
        ({"coverage": 0.9, "held_out": (P, [0, 1, 2])}, "needs 9 rows, but there are 3"),
    ],
)
def test_bad_rules(options, said):
    with pytest.raises(ValueError, match=said):
        decide(P, **options)


def test_fitted_sets_bring_their_labels():
    sets = softly.PredictionSets(0.5, classes=NAMES).fit(P, NAMES)
    found = decide(P, coverage=sets)
    assert found.classes.tolist() == NAMES
    assert all(NAMES[k] in found.labels[k] for k in range(3) if found.answers[k, k])
    assert NAMES[int(P[0].argmax())] in found.labels[0]
    with pytest.raises(ValueError, match="the sets were fitted to"):
        decide(P, coverage=sets, classes=["x", "y", "z"])
    with pytest.raises(ValueError, match="PredictionSets, which bring their threshold"):
        decide(P, coverage=sets, held_out=(P, NAMES))


@pytest.mark.parametrize("p", [[[0.5, 0.6]], [[np.nan, 1.0]], [0.5, 0.5], np.log(P), [["a", "b"]]])
def test_what_are_no_probabilities(p):
    with pytest.raises(ValueError, match="probabilities"):
        decide(p)
