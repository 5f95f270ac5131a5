"""What a fit learns of the Hessian, and hands on to the next."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from softly.objective import Objective
from softly.solvers import preconditioners
from softly.solvers.curvature import Curvature
from softly.solvers.preconditioners import Preconditioner, kronecker

L2 = 1e-3


def problem(weight=None):
    X, y = load_digits(return_X_y=True)
    return Objective(X / 16, y, 10, weight=weight, l2=L2, fit_intercept=True)


def known(objective, cost=np.inf):
    """Curvature by Kronecker factors of every other row, and then the Hessian of all."""
    ladder = [
        Preconditioner("factors", kronecker, 1, cost, learns=True, follows_penalty=True),
        Preconditioner("Hessian", preconditioners.hessian, objective.n_rows, 2 * cost),
    ]
    sample = objective.sample(slice(None, None, 2))
    return Curvature(objective, sample, ladder), sample


def vectors(objective, count=3):
    rng = np.random.default_rng(0)
    return [rng.normal(size=objective.shape) for _ in range(count)]


def test_an_inverse_has_the_penalty_that_there_is_now():
    objective = problem()
    point = vectors(objective, 1)[0] / 10
    curvature, sample = known(objective)
    curvature.inverse(point)
    objective.l2 = 100 * L2
    curvature.go_on()
    found = curvature.inverse(point)
    fresh = problem()
    fresh.l2 = 100 * L2
    expected, _ = known(fresh)
    for g in vectors(objective):
        np.testing.assert_allclose(found(g), expected.inverse(point)(g), rtol=1e-9, atol=1e-12)
    total = objective.total_weight
    assert sample.l2 == pytest.approx(100 * L2 * total / sample.total_weight)


def test_products_are_handed_on_under_the_new_penalty():
    objective = problem()
    point, along = vectors(objective, 2)
    along -= along.mean(axis=0)
    objective.value_and_gradient(point)
    curvature, _ = known(objective)
    curvature.inverse(point)
    curvature.product(along)
    objective.l2 = 50 * L2
    curvature.go_on()
    product = objective.curvature_along(along)
    np.testing.assert_allclose(curvature.inverse(point)(product), along, atol=1e-8)


def test_it_is_made_again_when_products_have_cost_as_much():
    objective = problem()
    a_pass = preconditioners.cost_of_pass(objective)
    curvature, sample = known(objective, cost=3 * a_pass)
    points = vectors(objective, 2)
    objective.value_and_gradient(points[0])
    curvature.inverse(points[0])
    made = sample.n_passes
    curvature.product(points[1])
    curvature.inverse(points[1])
    assert sample.n_passes == made
    curvature.inverse(points[1])  # a value, a product and a value, and now enough
    assert sample.n_passes == made + 1
    assert curvature.read() == sample.n_passes * sample.n_rows / objective.n_rows


def test_an_inverse_that_was_handed_on_is_kept_longer():
    objective = problem()
    a_pass = preconditioners.cost_of_pass(objective)
    curvature, sample = known(objective, cost=3 * a_pass)
    point = vectors(objective, 1)[0]
    curvature.inverse(point)
    curvature.go_on()
    for steps in range(1, 20):  # noqa: B007
        curvature.inverse(point)
        if sample.n_passes:
            break
    assert steps == 9  # 1 of before and 8: three times as much


def test_passes_are_counted_anew_under_another_penalty():
    objective = problem()
    curvature, _ = known(objective)
    curvature.inverse(vectors(objective, 1)[0])
    assert curvature.read() > 0
    curvature.go_on()
    assert curvature.read() == 0


def test_a_better_kind_comes_when_it_pays_and_is_not_handed_on():
    objective = problem()
    point = vectors(objective, 1)[0]
    objective.value_and_gradient(point)
    curvature, _ = known(objective, cost=preconditioners.cost_of_pass(objective))
    for _ in range(8):
        assert curvature.can_go_on
        curvature.inverse(point)
        if curvature.name == "Hessian":
            break
    assert curvature.name == "Hessian"
    assert not curvature.can_go_on
