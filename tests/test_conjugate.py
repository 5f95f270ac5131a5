"""Conjugate gradients and what they learn, on quadratics whose minimum is known."""

import numpy as np
import pytest

from softly.kernels import threads
from softly.objective import Objective
from softly.solvers import conjugate
from softly.solvers.conjugate import centred, conjugate_gradients
from softly.solvers.recycled import Recycled

SHAPE = (3, 8)


def problem(seed=0, shape=SHAPE):
    """A Hessian on parameters that sum to 0 over the classes, a gradient, a diagonal inverse."""
    rng = np.random.default_rng(seed)
    n = shape[0] * shape[1]
    root = rng.normal(size=(2 * n, n)) * np.geomspace(0.1, 10, n)
    keep = np.eye(n) - np.kron(np.full((shape[0],) * 2, 1 / shape[0]), np.eye(shape[1]))
    H = keep @ root.T @ root @ keep
    scale = 1 / np.diag(root.T @ root).reshape(shape).mean(axis=0)
    return H, centred(rng.normal(size=shape)), lambda g: g * scale, scale


def solve(H, g, inverse, **options):
    def product(d):
        return (H @ d.ravel()).reshape(d.shape)

    return conjugate_gradients(product, g, centred(inverse(g)), inverse, **options)


def test_solves_newtons_equations():
    H, g, inverse, _ = problem()
    found = solve(H, g, inverse, leave=1e-12)
    expected = -(np.linalg.pinv(H) @ g.ravel()).reshape(SHAPE)
    np.testing.assert_allclose(found.direction, expected, atol=1e-8 * np.abs(expected).max())
    assert not found.is_cut
    assert found.products <= 2 * g.size


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999, 2.0])
def test_a_radius_bounds_the_length_in_the_inverses_metric(share):
    H, g, inverse, scale = problem()
    whole = solve(H, g, inverse, leave=1e-12)
    found = solve(H, g, inverse, leave=1e-12, radius=share * whole.length)
    d = found.direction
    assert found.length == pytest.approx(np.sqrt((d * d / scale).sum()), rel=1e-6)
    assert found.length <= share * whole.length * (1 + 1e-9)
    assert found.is_cut == (share < 1)
    promised = -(g.ravel() @ d.ravel() + d.ravel() @ H @ d.ravel() / 2)
    assert found.promised == pytest.approx(promised, rel=1e-9)
    assert promised > 0
    assert found.products <= whole.products


def test_ends_where_more_would_not_pay():
    H, g, inverse, _ = problem()
    whole = solve(H, g, inverse, leave=1e-12)
    short = solve(H, g, inverse, leave=1e-12, enough=0.01 * whole.promised)
    assert short.products < whole.products
    assert short.promised > 0.9 * whole.promised


def test_pieces_change_no_bit_with_the_threads(monkeypatch):
    H, g, inverse, _ = problem()
    found = {}
    for piece in (1 << 15, 6):
        monkeypatch.setattr(conjugate, "_PIECE", piece)
        for count in (1, 2, 3):
            monkeypatch.setattr(threads._pool, "count", count)
            found[piece, count] = solve(H, g, inverse, leave=1e-3).direction
    for piece in (1 << 15, 6):
        for count in (2, 3):
            np.testing.assert_array_equal(found[piece, count], found[piece, 1])
    np.testing.assert_allclose(found[6, 1], found[1 << 15, 1], atol=1e-7)


def test_what_was_learnt_is_exact_along_its_directions():
    H, g, inverse, _ = problem()
    recycled, rng = Recycled(), np.random.default_rng(1)
    directions = [centred(rng.normal(size=SHAPE)) for _ in range(5)]
    for d in directions:
        recycled.keep(d, (H @ d.ravel()).reshape(SHAPE))
    improved = recycled.improve(inverse)
    for d in directions:
        np.testing.assert_allclose(improved((H @ d.ravel()).reshape(SHAPE)), d, atol=1e-9)
    first = solve(H, g, inverse, leave=1e-8)
    assert solve(H, g, improved, leave=1e-8).products < first.products


def test_what_was_learnt_elsewhere_leaves_the_inverse_positive():
    _, g, inverse, _ = problem()
    recycled, rng = Recycled(), np.random.default_rng(1)
    for seed in range(30):
        H, *_ = problem(seed)
        d = centred(rng.normal(size=SHAPE))
        recycled.keep(d, (H @ d.ravel()).reshape(SHAPE))
    recycled.keep(d, -d)  # no curvature at all: left out
    improved = recycled.improve(inverse)
    matrix = np.stack([improved(row.reshape(SHAPE)).ravel() for row in np.eye(g.size)])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9 * np.abs(matrix).max())
    assert np.linalg.eigvalsh(matrix)[0] > 0


def test_what_was_learnt_holds_under_another_penalty():
    H, _, inverse, _ = problem()
    rng = np.random.default_rng(1)
    X = rng.normal(size=(20, SHAPE[1] - 1))
    objective = Objective(X, np.arange(20) % 3, 3, weight=None, l2=0.1, fit_intercept=True)
    recycled = Recycled()
    directions = [centred(rng.normal(size=SHAPE)) for _ in range(5)]
    for d in directions:
        recycled.keep(d, (H @ d.ravel()).reshape(SHAPE))
    recycled.add_penalty(0.7, objective)
    improved = recycled.improve(inverse)
    for d in directions:
        product = (H @ d.ravel()).reshape(SHAPE)
        product[:, :-1] += 0.7 * d[:, :-1]  # not of the intercept
        np.testing.assert_allclose(improved(product), d, atol=1e-9)


def test_what_is_missed_is_what_is_left_of_the_quadratic():
    H, g, _, _ = problem()
    exact = np.linalg.pinv(H)
    best = g.ravel() @ exact @ g.ravel() / 2

    def nearly(g):  # the inverse, but for a little
        return (exact @ g.ravel()).reshape(SHAPE) + 0.05 * g / np.abs(np.diag(H)).max()

    found = solve(H, g, nearly, leave=0.9)
    left = best - found.promised
    assert left > 1e-9 * best
    assert found.missed == pytest.approx(2 * left, rel=0.1)


def test_a_first_direction_that_is_no_way_down_is_not_the_end():
    """The inverse is far too large along one direction, which is all that it sees at first."""
    H, g, inverse, _ = problem()
    stiff = np.linalg.eigh(H)[1][:, -1]
    g = g - (stiff @ g.ravel() - 1e-3 * np.abs(g).max()) * stiff.reshape(SHAPE)

    def wrong(r):
        return inverse(r) + 1e6 * (stiff @ r.ravel()) * stiff.reshape(SHAPE)

    best = g.ravel() @ np.linalg.pinv(H) @ g.ravel() / 2
    for leave in (1e-9, 0.3):  # neither does what is left beside it end it
        found = solve(H, g, wrong, leave=leave, enough=1e-3 * best)
        assert found.promised > 0.5 * best
