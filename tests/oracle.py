"""What the exact answers are: mpmath with 50 digits, one row at a time, slow and obvious.

Imports nothing of softly. Scores come as a sequence of Python or NumPy floats, answers
are mpmath numbers. `copies` says how often each score of a finite row occurs, so that a row
of a million is asked about through its distinct scores. The last part names the rows worth
asking about.
"""

import mpmath
import numpy as np

mp = mpmath.MPContext()  # our own: mpmath's global precision is not ours to change
mp.dps = 50


def _exact(row):
    return [mp.mpf(float(score)) for score in row]


def _others(row, copies):
    """(max, the sum of exp(z - max) over all entries but one that holds the maximum)."""
    copies = [1] * len(row) if copies is None else list(map(int, copies))
    top = max(row)
    copies[row.index(top)] -= 1
    return top, mp.fsum(n * mp.exp(score - top) for score, n in zip(row, copies, strict=True))


def _spoilt(row):
    """NaN anywhere, or nothing but -inf: there is no answer."""
    return any(mp.isnan(score) for score in row) or all(score == mp.ninf for score in row)


def logsumexp(row, copies=None):
    row = _exact(row)
    if any(mp.isnan(score) for score in row):
        return mp.nan
    if mp.isinf(max(row)):
        return max(row)
    top, others = _others(row, copies)
    return top + mp.log1p(others)


def softmax(row, copies=None):
    row = _exact(row)
    if _spoilt(row):
        return [mp.nan] * len(row)
    if max(row) == mp.inf:
        share = mp.mpf(1) / row.count(mp.inf)
        return [share if score == mp.inf else mp.zero for score in row]
    top, others = _others(row, copies)
    return [mp.exp(score - top) / (1 + others) for score in row]


def log_softmax(row, copies=None):
    row = _exact(row)
    if _spoilt(row):
        return [mp.nan] * len(row)
    if max(row) == mp.inf:
        share = -mp.log(row.count(mp.inf))
        return [share if score == mp.inf else mp.ninf for score in row]
    top, others = _others(row, copies)
    log_total = mp.log1p(others)  # not log(1 + others): others may be 1e-300
    return [(score - top) - log_total for score in row]


def sigmoid(x):
    x = mp.mpf(float(x))
    return 1 / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x))


def log_sigmoid(x):
    x = mp.mpf(float(x))
    return -mp.log1p(mp.exp(-x)) if x > 0 else x - mp.log1p(mp.exp(x))


def logit(p):
    p = mp.mpf(float(p))
    if not 0 <= p <= 1:
        return mp.nan
    if p in (0, 1):
        return mp.inf if p else mp.ninf
    # log(p / (1 - p)), near 1/2 without losing what makes it differ from log(1)
    return mp.log1p((2 * p - 1) / (1 - p)) if p > 0.25 else mp.log(p) - mp.log1p(-p)


def cross_entropy(rows, target, weight=None):
    """(the weighted loss of each row, its gradient with respect to the row's scores)."""
    losses, gradients = [], []
    for i, (row, t) in enumerate(zip(rows, target, strict=True)):
        w = mp.one if weight is None else mp.mpf(float(weight[i]))
        if w == 0:
            losses.append(mp.zero)
            gradients.append([mp.zero] * len(row))
            continue
        losses.append(-w * log_softmax(row)[t])
        gradients.append([w * (p - (k == t)) for k, p in enumerate(softmax(row))])
    return losses, gradients


def ulp(exact, dtype):
    """The unit in the last place of a number, as the type has it (subnormals included)."""
    info = np.finfo(dtype)
    if exact == 0:
        return mp.ldexp(1, info.minexp - info.nmant)
    return mp.ldexp(1, max(mp.mag(exact) - 1, int(info.minexp)) - int(info.nmant))


def ulps(actual, exact, dtype):
    """How far a result is from the exact number, in units in the last place of the latter.

    The same infinity, or NaN for NaN, is distance 0; infinity for a finite number is
    distance infinity, unless the number rounds to infinity in the type.
    """
    actual, exact = mp.mpf(float(actual)), mp.mpf(exact)
    largest = mp.mpf(float(np.finfo(dtype).max))
    if mp.isfinite(exact) and abs(exact) >= largest + ulp(largest, dtype) / 2:
        exact = mp.sign(exact) * mp.inf
    if mp.isnan(actual) or mp.isnan(exact):
        return 0.0 if mp.isnan(actual) and mp.isnan(exact) else float("inf")
    if mp.isinf(actual) or mp.isinf(exact):
        return 0.0 if actual == exact else float("inf")
    return float(abs(actual - exact) / ulp(exact, dtype))


def worst_ulps(actual, exact, dtype):
    """The largest of the distances of many results; equal pairs are measured once."""
    pairs = set(zip(np.ravel(actual).tolist(), exact, strict=True))
    return max(ulps(a, e, dtype) for a, e in pairs)


# The rows worth asking about -------------------------------------------------------------


def rounded_difference(row):
    """z - max(z) rounded once to the row's type: what any computation in the type starts from.

    The exact answer for these is what a kernel is held to: the rounding itself is forced.
    """
    with np.errstate(over="ignore"):
        return row - row.max()


def hard_rows(classes, dtype, seed=0):
    """Rows of finite scores (and -inf) that break careless kernels, by name."""
    rng = np.random.default_rng([seed, classes])
    info = np.finfo(dtype)
    deepest = float(np.log(info.smallest_subnormal.astype(np.float64)))  # exp is 0 a little below
    normal = rng.normal(size=classes)
    rows = {
        "plain": 3 * normal,
        "deep": rng.uniform(1.05 * deepest, 0, size=classes),
        "brink": deepest * rng.uniform(0.83, 1.02, size=classes),  # exp is subnormal
        "huge": 1e30 * normal,
        "largest": rng.choice([-1, 1, 0.5], size=classes) * float(info.max),
        "subnormal": rng.integers(-9, 9, size=classes) * float(info.smallest_subnormal),
        "ties": rng.integers(-2, 3, size=classes),
        "equal": np.full(classes, 0.1),
        "certain": normal,
        "surer": normal,
        "holes": np.where(rng.random(classes) < 0.5, -np.inf, normal),
        "offset": 1e4 + 3 * normal,
    }
    rows = {name: np.array(row, dtype=dtype) for name, row in rows.items()}
    where = int(rng.integers(classes))
    rows["brink"][where] = 0
    rows["certain"][where] = rows["certain"].max() + 40  # log p is some -1e-17
    rows["surer"][where] = rows["surer"].max() - 0.8 * deepest  # the smallest exp still normal
    rows["holes"][where] = 1
    return rows
