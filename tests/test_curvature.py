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


def known(objective, kind="Kronecker factors", cost=np.inf, share=2):
    """Curvature by one kind of preconditioner, made of a share of the rows."""
    make = {"Kronecker factors": kronecker, "Hessian": preconditioners.hessian}[kind]
    follows = kind == "Kronecker factors"
    ladder = [Preconditioner(kind, make, 1, cost, learns=follows, follows_penalty=follows)]
    sample = objective.sample(slice(None, None, share))
    return Curvature(objective, sample, ladder), sample


def vectors(objective, count=3):
    rng = np.random.default_rng(0)
    return [rng.normal(size=objective.shape) for _ in range(count)]


@pytest.mark.parametrize("kind", ["Kronecker factors", "Hessian"])
def test_an_inverse_has_the_penalty_that_there_is_now(kind):
    objective = problem()
    point = vectors(objective, 1)[0] / 10
    curvature, sample = known(objective, kind)
    curvature.inverse(point)
    objective.l2 = 100 * L2
    curvature.go_on()
    found = curvature.inverse(point)
    fresh = problem()
    fresh.l2 = 100 * L2
    expected, _ = known(fresh, kind)
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
    first = curvature.inverse(points[0])
    made = sample.n_passes
    curvature.product(points[1])
    curvature.inverse(points[1])
    assert sample.n_passes == made
    curvature.inverse(points[1])  # a value, a product and a value, and now enough
    assert sample.n_passes == made + 1
    assert curvature.read() == sample.n_passes * sample.n_rows / objective.n_rows
    assert first is not None


def test_passes_are_counted_anew_under_another_penalty():
    objective = problem()
    curvature, _ = known(objective)
    curvature.inverse(vectors(objective, 1)[0])
    assert curvature.read() > 0
    curvature.go_on()
    assert curvature.read() == 0
