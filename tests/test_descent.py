"""Quadratics with an L1 penalty: the compiled kernels of every level are their NumPy definition."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from softly.kernels import chosen, fallback

needs_compiled = pytest.mark.skipif(chosen is fallback, reason="nothing is compiled")


def sparse(n, d, dtype, index, seed=0):
    X = sp.random_array((n, d), density=0.3, dtype=dtype, rng=np.random.default_rng(seed)).tocsr()
    X.data -= 0.5
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    return X


@pytest.mark.parametrize("kernels", [chosen, fallback])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("intercept", [True, False])
def test_gram_matrices_of_blocks(kernels, dtype, index, intercept):
    X = sparse(60, 23, dtype, index)
    weight = np.random.default_rng(1).random(60) * (np.arange(60) % 5 > 0)
    features = np.random.default_rng(2).permutation(23)[:17]
    blocks = [features[:7], features[7:14], features[14:]]
    size = 7 + intercept
    place = np.full(23, -1)
    for b, some in enumerate(blocks):
        place[some] = b * size + np.arange(len(some))
    grams = np.zeros((3, size, size))
    kernels.block_grams(X, place, 7 if intercept else -1, weight, grams)
    for b, some in enumerate(blocks):
        x = X.toarray().astype(float)[:, some]
        if intercept and b == 0:
            x = np.hstack([x, np.ones((60, 1))])
        expected = np.zeros((size, size))
        expected[: x.shape[1], : x.shape[1]] = x.T @ (weight[:, None] * x)
        np.testing.assert_allclose(grams[b], expected, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(grams[b], grams[b].T, rtol=1e-13, atol=1e-14)


def quadratic(n, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n + 3, n))
    return root.T @ root, rng.normal(size=n), 5 * rng.normal(size=n), rng.random(n)


@pytest.mark.parametrize("kernels", [chosen, fallback])
@pytest.mark.parametrize("n", [1, 2, 9, 33])
def test_descent_comes_to_the_minimum(kernels, n):
    matrix, y, slope, l1 = quadratic(n)
    at, left = y.copy(), slope.copy()
    kernels.descend(matrix, l1, at - np.inf, at + np.inf, 3000, 0.0, at, left)
    np.testing.assert_allclose(left, slope + matrix @ (at - y), atol=1e-9 * np.abs(slope).max())
    held = np.where(at != 0, left + l1 * np.sign(at), np.maximum(np.abs(left) - l1, 0))
    assert np.abs(held).max() < 1e-6


@pytest.mark.parametrize("kernels", [chosen, fallback])
def test_descent_goes_no_further_than_it_may(kernels):
    matrix, y, slope, l1 = quadratic(33, seed=1)
    low, high = y - 0.1, y + 0.2
    at, left = y.copy(), slope.copy()
    kernels.descend(matrix, l1, low, high, 3000, 0.0, at, left)
    assert (at >= low).all()
    assert (at <= high).all()
    least = np.where(at != 0, left + l1 * np.sign(at), left - np.clip(left, -l1, l1))
    ends = ((at == low) & (least > 0)) | ((at == high) & (least < 0))
    assert 3 < ends.sum() < 33
    assert np.abs(least[~ends]).max() < 1e-6


@needs_compiled
@pytest.mark.parametrize("sweeps", [1, 2, 20])
def test_descent_is_its_definition(sweeps):
    matrix, y, slope, l1 = quadratic(41, seed=3)
    answers = []
    for kernels in (chosen, fallback):
        at, left = y.copy(), slope.copy()
        kernels.descend(matrix, l1, at - 2.0, at + 2.0, sweeps, 0.01, at, left)
        answers.append((at, left))
    np.testing.assert_allclose(*[at for at, _ in answers], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(*[left for _, left in answers], rtol=1e-9, atol=1e-9)


@needs_compiled
def test_what_does_not_fit_together_is_refused():
    X = sparse(20, 6, np.float64, np.int32)
    weight, place, grams = np.ones(20), np.arange(6), np.zeros((1, 6, 6))
    for wrong in (
        (X, place, -1, weight[:19], grams),
        (X, place + 1, -1, weight, grams),
        (X, place, 6, weight, grams),
        (X, place, -1, weight, np.zeros((1, 6, 5))),
    ):
        with pytest.raises(ValueError, match=r"needed|square|no block"):
            chosen.block_grams(*wrong)
    twice = sp.csr_array((np.ones(3), np.zeros(3, np.int32), np.array([0, 3])), shape=(1, 1))
    with pytest.raises(ValueError, match="names a feature twice"):
        chosen.block_grams(twice, np.array([0]), -1, np.ones(1), np.zeros((1, 1, 1)))


@needs_compiled
@pytest.mark.parametrize("level", ["v2", "v3"])
def test_older_processors(level):
    code = """
import sys, numpy as np, test_descent as t
from softly.kernels import chosen
assert chosen.level == sys.argv[1], chosen.level
for dtype in (np.float32, np.float64):
    t.test_gram_matrices_of_blocks(chosen, dtype, np.int32, True)
for n in (1, 9, 33):
    t.test_descent_comes_to_the_minimum(chosen, n)
"""
    environment = {**os.environ, "SOFTLY_CPU": level, "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", code, level]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "but this processor has" in done.stderr:
        pytest.skip("not a level of this processor")
    assert done.returncode == 0, done.stderr
