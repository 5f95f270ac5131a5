"""A pass over a linear layer: the compiled kernels of every level are their NumPy definition."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from softly.kernels import chosen, fallback

needs_compiled = pytest.mark.skipif(chosen is fallback, reason="nothing is compiled")

# Around every edge: rows of a tile, features of a block, classes of a vector and of a register.
SHAPES = [
    (1, 1, 2),
    (7, 3, 2),
    (300, 54, 7),
    (257, 17, 8),
    (33, 31, 9),
    (100, 300, 10),
    (40, 257, 13),
    (20, 40, 16),
    (50, 33, 17),
    (30, 16, 26),
    (25, 48, 33),
    (20, 64, 65),
    (17, 5, 130),
]


def layer(n, d, k, dtype, soft=False, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(dtype)
    X[rng.random(X.shape) < 0.5] = 0
    target = rng.dirichlet(np.ones(k), size=n).astype(dtype) if soft else rng.integers(k, size=n)
    weights, along = (rng.normal(size=(2, d + 1, k)) / np.sqrt(d)).astype(dtype)
    scale = rng.choice([0.0, 0.5, 3.0], size=n).astype(dtype)
    return X, target, weights, along, scale


@needs_compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["dense", "strided", "csr", "csr with wide indices"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_is_numpy(dtype, shape, form, soft, weighted):
    n, d, k = shape
    X, target, weights, along, scale = layer(*shape, dtype, soft)
    X = {
        "dense": lambda: X,
        "strided": lambda: np.hstack([X, X])[:, :d],
        "csr": lambda: sp.csr_array(X),
        "csr with wide indices": lambda: _wide(sp.csr_array(X)),
    }[form]()
    scale = scale if weighted else None
    close = {"rtol": 0, "atol": (2e-5 if dtype == np.float32 else 1e-13) * n}
    start, stop = n // 5, n
    found, expected = ([], []), ([], [])
    for kernels, answers in ((chosen, found), (fallback, expected)):
        p = np.full((n, k), 7, dtype)
        args = (X, weights, target, scale, start, stop)
        value, gradient = kernels.linear_loss(*args, p)
        assert (p[:start] == 7).all()
        answers[0].extend([value, gradient])
        np.testing.assert_allclose(kernels.linear_loss(*args, None)[1], gradient, atol=1e-12)
        if scale is not None:
            p[scale == 0] = 0
        answers[1].append(p[start:])
        for at in ((None, p), (weights, None)):
            product = kernels.linear_curvature(X, at[0], along, scale, start, stop, at[1])
            answers[0].append(product)
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, **close)
    np.testing.assert_allclose(found[1], expected[1], atol=close["atol"] / n)


def _wide(X):
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def test_the_definition_is_right():
    """The loss against a sum written out, its gradient and curvature against differences."""
    X, target, weights, along, scale = layer(11, 4, 3, np.float64)
    value, gradient = fallback.linear_loss(X, weights, target, scale, 0, 11, None)
    total = 0.0
    for row, y, s in zip(X, target, scale, strict=True):
        scores = [
            sum(x * w for x, w in zip([*row, 1], weights[:, j], strict=True)) for j in range(3)
        ]
        total += s * (np.log(sum(np.exp(scores))) - scores[y])
    assert value == pytest.approx(total, rel=1e-13)
    sides = [
        fallback.linear_loss(X, weights + h * along, target, scale, 0, 11, None)
        for h in (-1e-5, 1e-5)
    ]
    assert (sides[1][0] - sides[0][0]) / 2e-5 == pytest.approx(np.vdot(gradient.T, along), rel=1e-7)
    product = fallback.linear_curvature(X, weights, along, scale, 0, 11, None)
    np.testing.assert_allclose(product, (sides[1][1] - sides[0][1]) / 2e-5, atol=1e-8)


@needs_compiled
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_a_row_counts_the_same_in_any_range(form):
    X, target, weights, _, _ = layer(600, 20, 5, np.float32)
    p = np.empty((600, 5), np.float32)
    chosen.linear_loss(form(X), weights, target, None, 0, 600, p)
    for start, stop in ((0, 1), (3, 20), (255, 258), (17, 600)):
        q = np.empty_like(p)
        chosen.linear_loss(form(X), weights, target, None, start, stop, q)
        np.testing.assert_array_equal(p[start:stop], q[start:stop])


@needs_compiled
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_tiles_that_weigh_nothing_add_nothing_and_leave_nothing(form):
    X, target, weights, along, _ = layer(1500, 20, 5, np.float32)
    scale = np.ones(1500, np.float32)
    scale[100:1300] = 0
    X[500] = np.inf  # is not even read
    p = np.full((1500, 5), 7, np.float32)
    value, gradient = chosen.linear_loss(form(X), weights, target, scale, 0, 1500, p)
    product = chosen.linear_curvature(form(X), None, along, scale, 0, 1500, p)
    assert (p[500:600] == 0).all()
    some = np.flatnonzero(scale)
    q = np.empty((len(some), 5), np.float32)
    args = (form(X[some]), weights, target[some], None, 0, len(some))
    few_value, few_gradient = chosen.linear_loss(*args, q)
    few_product = chosen.linear_curvature(args[0], None, along, None, 0, len(some), q)
    np.testing.assert_array_equal(p[some], q)
    assert value == pytest.approx(few_value, rel=1e-6)
    np.testing.assert_allclose(gradient, few_gradient, atol=1e-3)
    np.testing.assert_allclose(product, few_product, atol=1e-3)


@needs_compiled
def test_slopes_of_rows_that_weigh_nothing_are_zero():
    X, target, weights, along, _ = layer(900, 20, 5, np.float32)
    rows, width = sp.csr_array(X), chosen.width(5)
    packed, directions = np.zeros((2, 21, width), np.float32)
    packed[:, :5], directions[:, :5] = weights, along
    scale = np.ones(900, np.float32)
    scale[200:800] = 0
    slopes, p = np.full((900, width), 7, np.float32), np.full((900, 5), 7, np.float32)
    chosen.linear_slopes(rows, packed, 5, target, scale, 0, 900, slopes, p)
    assert (slopes[200:800, :5] == 0).all()
    assert (slopes[:200, :5] != 0).any()
    slopes[:] = 7
    chosen.linear_slopes_along(rows, directions, 5, scale, 0, 900, slopes, p)
    assert (slopes[200:800, :5] == 0).all()


LEVEL = """
import sys
import test_linear_kernels as t
from softly.kernels import chosen
assert chosen.level == sys.argv[1], chosen.level
import numpy as np
for dtype in (np.float32, np.float64):
    for shape in t.SHAPES:
        for form in ("dense", "csr"):
            for soft in (False, True):
                t.test_compiled_is_numpy(dtype, shape, form, soft, True)
"""


@needs_compiled
@pytest.mark.parametrize("level", ["v2", "v3"])
def test_older_processors(level):
    environment = {**os.environ, "SOFTLY_CPU": level, "PYTHONPATH": os.path.dirname(__file__)}
    command = [sys.executable, "-c", LEVEL, level]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "but this processor has" in done.stderr:
        pytest.skip("not a level of this processor")
    assert done.returncode == 0, done.stderr


@needs_compiled
def test_what_does_not_fit_together_is_refused():
    X, target, weights, _, scale = layer(9, 4, 3, np.float64)
    for wrong in (
        (X[:, :3], weights, target, scale, 0, 9, None),
        (X, weights, target, scale, 0, 10, None),
        (X, weights, target[:8], scale, 0, 9, None),
        (X, weights.astype("f"), target, scale, 0, 9, None),
        (X, weights, target, scale[:5], 0, 9, None),
        (X, weights, target, scale, 0, 9, np.empty((9, 2))),
        (X.T.copy().T, weights, target, scale, 0, 9, None),
    ):
        with pytest.raises(ValueError, match=r"need|out of range"):
            chosen.linear_loss(*wrong)
