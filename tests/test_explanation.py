"""Every number of an explanation against the oracle, and what has no answer."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import softly
from softly.explanation import explain

FINITE = st.floats(-50, 50)


@given(st.lists(FINITE, min_size=1, max_size=8), st.floats(0.1, 10), st.data())
def test_the_numbers_fit_together(scores, temperature, data):
    true = data.draw(st.integers(0, len(scores) - 1))
    names = [f"class {i}" for i in range(len(scores))]
    found = explain(scores, classes=names, temperature=temperature, true=names[true])
    z = np.array(scores) / temperature
    np.testing.assert_allclose(found.scaled_scores, z)
    np.testing.assert_allclose(found.shifted_scores, z - z.max(), atol=1e-12)
    np.testing.assert_allclose(found.exponentials, np.exp(found.shifted_scores))
    assert found.sum_of_exponentials == pytest.approx(sum(found.exponentials))
    np.testing.assert_allclose(
        found.probabilities, np.array(found.exponentials) / found.sum_of_exponentials, rtol=1e-14
    )
    assert found.chosen == names[int(np.argmax(scores))]
    p = np.array(found.probabilities)
    some = p[p > 0]
    assert found.entropy == pytest.approx(-(some * np.log(some)).sum(), abs=1e-12)
    assert found.perplexity == pytest.approx(math.exp(found.entropy))
    best = sorted(p)
    assert found.margin == pytest.approx(best[-1] - best[-2] if len(p) > 1 else 1)
    value, grad = softly.cross_entropy(z, true, return_grad=True)
    assert found.cross_entropy.value == pytest.approx(float(value), abs=1e-12)
    np.testing.assert_allclose(found.cross_entropy.gradient_of_scaled_scores, grad, atol=1e-12)


def test_the_gradient_is_that_of_the_scaled_scores():
    """By differences, at a temperature that tells it from the scores' own."""
    z, step = np.array([2.0, 1.0, 0.1]) / 0.5, 1e-6

    def loss(scaled):
        return explain(scaled, true="B").cross_entropy.value

    slope = [(loss(z + step * e) - loss(z - step * e)) / (2 * step) for e in np.eye(3)]
    found = explain([2.0, 1.0, 0.1], temperature=0.5, true="B")
    np.testing.assert_allclose(found.cross_entropy.gradient_of_scaled_scores, slope, atol=1e-8)


def test_two_classes_are_a_sigmoid():
    found = explain([1.0, -1.0], temperature=0.5)
    assert found.sigmoid.difference == 4.0
    assert found.sigmoid.value == pytest.approx(1 / (1 + math.exp(-4)))
    assert found.sigmoid.value == pytest.approx(found.probabilities[0])
    assert explain([1.0]).sigmoid is explain([1.0, 2.0, 3.0]).sigmoid is None


def test_infinite_scores_are_limits():
    found = explain([math.inf, 1.0, math.inf, -math.inf], true="B")
    assert found.probabilities == [0.5, 0.0, 0.5, 0.0]
    assert found.exponentials == [1.0, 0.0, 1.0, 0.0]
    assert found.shifted_scores == [0.0, -math.inf, 0.0, -math.inf]
    assert (found.tied, found.margin, found.chosen) == (2, 0.0, "A")
    assert found.cross_entropy.value == math.inf
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(map(float, again["scores"])) == found.scores
    assert float(again["cross_entropy"]["value"]) == math.inf


def test_no_number_overflows_without_a_word():
    found = explain([1e308, -1e308], temperature=1e-3)
    assert found.probabilities == [1.0, 0.0]
    assert explain([-5.0]).probabilities == [1.0]
    assert explain([0.0], true="A").cross_entropy.value == 0.0


def test_names_without_names():
    assert explain([1.0] * 26).classes[-1] == "Z"
    assert explain([1.0] * 27).classes[-1] == "27"


def test_leading_are_the_best_and_the_true():
    found = explain([0.0, 3.0, 3.0, 1.0], true="A")
    assert found.leading(2) == [1, 2, 0]
    assert found.leading(9) == [1, 2, 3, 0]


BAD = {
    "scores are needed, one for each class, and none came": ([], {}),
    "score 2 is NaN, .*-inf to leave its class out": ([1.0, math.nan], {}),
    "every score is -inf": ([-math.inf, -math.inf], {}),
    "the temperature is 0, .*towards 0 the greatest score takes all": ([1.0], {"temperature": 0}),
    "the temperature is -1, ": ([1.0], {"temperature": -1}),
    "the temperature is nan, ": ([1.0], {"temperature": math.nan}),
    "the temperature is inf, ": ([1.0], {"temperature": math.inf}),
    "1 came, but 2 are needed": ([1.0, 2.0], {"classes": ["a"]}),
    "two classes are called 'a': ": ([1.0, 2.0, 0.0], {"classes": ["a", "b", "a"]}),
    "the name of class 2 is empty": ([1.0, 2.0], {"classes": ["a", " "]}),
    "the name of class 1 is not text": ([1.0], {"classes": ["\udcff"]}),
    "the true class 'c' is none of a, b": ([1.0, 2.0], {"classes": ["a", "b"], "true": "c"}),
    "none of 1, 2, 3, 4, 5, 6, 7, 8, \\.\\.\\.": ([1.0] * 30, {"true": "A"}),
}


@pytest.mark.parametrize("said", BAD)
def test_what_has_no_answer_is_one_sentence(said):
    scores, options = BAD[said]
    with pytest.raises(ValueError, match=said) as caught:
        explain(scores, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
