"""What the exact answers are: mpmath with 50 digits, one row at a time, slow and obvious.

Imports nothing of softly. Scores come as a sequence of Python or NumPy floats (mpmath numbers
are taken as they are), answers are mpmath numbers. `copies` says how often each score of a
finite row occurs, so that a row of a million is asked about through its distinct scores;
`where` is a row of booleans, the entries that take part. The last part names the rows worth
asking about.
"""

from dataclasses import dataclass

import mpmath
import numpy as np

try:
    from ml_dtypes import finfo  # NumPy's, and bfloat16's
except ImportError:
    from numpy import finfo

mp = mpmath.MPContext()  # our own: mpmath's global precision is not ours to change
mp.dps = 50

# softmax and its family ------------------------------------------------------------------


def _number(x):
    return x if isinstance(x, mp.mpf) else mp.mpf(float(x))


def _exact(row, where=None):
    """The scores, -inf where the mask leaves them out, whatever they are there."""
    allowed = [True] * len(row) if where is None else where
    return [_number(z) if taken else mp.ninf for z, taken in zip(row, allowed, strict=True)]


def _others(row, copies):
    """(max, the sum of exp(z - max) over all entries but one that holds the maximum)."""
    copies = [1] * len(row) if copies is None else list(map(int, copies))
    top = max(row)
    copies[row.index(top)] -= 1
    return top, mp.fsum(n * mp.exp(score - top) for score, n in zip(row, copies, strict=True))


def _spoilt(row):
    """NaN anywhere, or nothing but -inf: there is no answer."""
    return any(mp.isnan(score) for score in row) or all(score == mp.ninf for score in row)


def _tempered(row, temperature):
    """z / T up to a shift, and its limits: what is out of the race is -inf.

    At T = 0 the greatest are left, and wherever there is +inf, the +inf; at T = inf all that
    are not -inf are equal.
    """
    temperature = _number(temperature)
    top = max(row)
    if mp.isinf(top) or temperature == 0:
        return [mp.zero if score == top else mp.ninf for score in row]
    if temperature == mp.inf:
        return [score if score == mp.ninf else mp.zero for score in row]
    return [score / temperature for score in row]


def softmax(row, copies=None, *, temperature=1, where=None):
    row = _exact(row, where)
    if _spoilt(row):
        return [mp.nan] * len(row)
    row = _tempered(row, temperature)
    top, others = _others(row, copies)
    return [mp.exp(score - top) / (1 + others) for score in row]


def log_softmax(row, copies=None, *, temperature=1, where=None):
    row = _exact(row, where)
    if _spoilt(row):
        return [mp.nan] * len(row)
    row = _tempered(row, temperature)
    top, others = _others(row, copies)
    log_total = mp.log1p(others)  # not log(1 + others): others may be 1e-300
    return [(score - top) - log_total for score in row]


def logsumexp(row, copies=None, *, b=None, temperature=1, where=None, return_sign=False):
    """log(sum b exp(z / T)), or (the logarithm of its size, its sign).

    Entries of weight 0 are left out, whatever they are. Without the sign a negative sum is NaN.
    """
    weights = [1] * len(row) if b is None else b
    weights = [_number(n) for n in weights]
    if copies is not None:
        weights = [n * int(c) for n, c in zip(weights, copies, strict=True)]
    kept = [pair for pair in zip(_exact(row, where), weights, strict=True) if pair[1] != 0]
    value, sign = _signed_logsumexp(kept, _number(temperature))
    if return_sign:
        return value, sign
    return mp.nan if sign < 0 else value


def _signed_logsumexp(pairs, temperature):
    if any(mp.isnan(number) for pair in pairs for number in pair):
        return mp.nan, mp.nan
    pairs = [(score, n) for score, n in pairs if score != mp.ninf]
    if not pairs:
        return mp.ninf, mp.zero
    top = max(score for score, _ in pairs)
    if top == mp.inf:
        signs = {mp.sign(n) for score, n in pairs if score == mp.inf}
        return (mp.inf, signs.pop()) if len(signs) == 1 else (mp.nan, mp.nan)
    if temperature == 0:
        return _coldest(pairs)
    if temperature == mp.inf:
        return _log_of(n for _, n in pairs)
    size, sign = _log_of(n * mp.exp((score - top) / temperature) for score, n in pairs)
    return top / temperature + size, sign


def _coldest(pairs):
    """The limit T = 0: of the greatest score whose weights do not cancel."""
    for score in sorted({score for score, _ in pairs}, reverse=True):
        size, sign = _log_of(n for other, n in pairs if other == score)
        if sign:
            return (mp.sign(score) * mp.inf if score else size), sign
    return mp.ninf, mp.zero


def _log_of(terms):
    """(log |sum|, sign of the sum); relative accuracy also where the sum is 1 + 1e-300."""
    terms = sorted(terms, key=abs)
    total = mp.fsum(terms)
    sign = mp.sign(total)
    if 0.5 < abs(total) < 2:
        return mp.log1p(
            mp.fsum([*(sign * term for term in terms[:-1]), sign * terms[-1] - 1])
        ), sign
    return mp.log(abs(total)) if total else mp.ninf, sign


def softmax_inverse(p, *, temperature=1, where=None):
    """T (log p - mean log p), the mean over the entries that are not 0; -inf for those."""
    p = [mp.zero if z == mp.ninf else z for z in _exact(p, where)]
    if any(mp.isnan(share) or share < 0 for share in p):
        return [mp.nan] * len(p)
    logs = [mp.log(share) for share in p if share > 0]
    mean = mp.fsum(logs) / len(logs) if logs else mp.nan
    return [_times(mp.log(s) - mean, _number(temperature)) if s > 0 else mp.ninf for s in p]


def softmax_vjp(p, g, *, temperature=1, where=None):
    """What a loss's gradient g by p = softmax(z / T) is by z."""
    p, g = _exact_pair(p, g, where)
    mean = mp.fsum(a * b for a, b in zip(p, g, strict=True))
    return [_over(a * (b - mean), temperature) for a, b in zip(p, g, strict=True)]


def softmax_jvp(p, t, *, temperature=1, where=None):
    """How p = softmax(z / T) moves when z moves by t: the Jacobian is symmetric."""
    return softmax_vjp(p, t, temperature=temperature, where=where)


def log_softmax_vjp(log_p, g, *, temperature=1, where=None):
    """What a loss's gradient g by log_p = log_softmax(z / T) is by z."""
    allowed = [True] * len(g) if where is None else where
    p = [mp.exp(_number(a)) if taken else 0 for a, taken in zip(log_p, allowed, strict=True)]
    p, g = _exact_pair(p, g, where)
    total = mp.fsum(g)
    return [_over(b - a * total, temperature) for a, b in zip(p, g, strict=True)]


def _exact_pair(p, g, where):
    """Both as numbers, zero where the mask leaves them out."""
    allowed = [True] * len(p) if where is None else where
    return (
        [_number(x) if taken else mp.zero for x, taken in zip(row, allowed, strict=True)]
        for row in (p, g)
    )


def _over(x, temperature):
    """x / T, where 0 / 0 is 0 and T = inf leaves nothing; NaN stays."""
    temperature = _number(temperature)
    if x == 0 or (temperature == mp.inf and not mp.isnan(x)):
        return mp.zero
    return x / temperature if temperature else mp.sign(x) * mp.inf


def _times(a, b):
    """a b, where nothing of anything is nothing: 0 inf and 0 NaN are 0."""
    return a * b if a and b else mp.zero


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


# The losses ------------------------------------------------------------------------------


@dataclass
class LossRow:
    """One row's part in a cross entropy, before it is weighted and reduced."""

    sample_weight: mp.mpf  # 0 for a row that is ignored
    class_weight: mp.mpf  # of the target, where there is one
    wanted: list  # a_j: how much of each class
    entropy: mp.mpf  # sum a_j (1 - p_j)^gamma (-log p_j)
    entropy_gradient: list
    square: mp.mpf  # z_loss logsumexp^2
    square_gradient: list
    logsumexp: mp.mpf
    dead: bool = False  # exactly no loss and no gradient


def cross_entropy(rows, target, sample_weight=None, *, reduction="none", empty="nan", **options):
    """(value, gradients): the value of each row for "none", else one; see `loss_rows`."""
    parts = loss_rows(rows, target, sample_weight, **options)
    return reduced(parts, is_hard(target), reduction, empty)


def is_hard(target):
    return not isinstance(target, tuple) and np.ndim(target) == 1


def loss_rows(
    rows,
    target,
    sample_weight=None,
    *,
    class_weight=None,
    ignore_index=-100,
    label_smoothing=0,
    z_loss=0,
    logit_cap=None,
    temperature=1,
    where=None,
    focal=0,
):
    """A LossRow for each row.

    target: a class for each row; a row of shares of the classes for each; or the pair
    (indices, shares), a row of both for each. temperature: a number, or one for each row.
    """
    classes = len(rows[0]) if len(rows) else 0
    weights = [mp.one] * classes if class_weight is None else [_number(w) for w in class_weight]

    def loss_row(i):
        share = tuple(part[i] for part in target) if isinstance(target, tuple) else target[i]
        hard = np.ndim(share) == 0
        weight = mp.one if sample_weight is None else _number(sample_weight[i])
        if hard and share == ignore_index:
            return _dead_row(mp.zero, mp.zero, classes)
        of_target = weights[share] if hard else mp.one
        allowed = [True] * classes if where is None else [bool(taken) for taken in where[i]]
        wanted = _wanted(share, weights, _number(label_smoothing), allowed)
        if weight == 0 or (not any(wanted) and z_loss == 0):
            return _dead_row(weight, of_target, classes)
        each = temperature[i] if np.ndim(temperature) else temperature
        loss = _loss(rows[i], wanted, _number(z_loss), logit_cap, each, allowed, _number(focal))
        return LossRow(weight, of_target, wanted, *loss)

    return [loss_row(i) for i in range(len(rows))]


def _dead_row(weight, of_target, classes):
    nothing = [mp.zero] * classes
    return LossRow(
        weight, of_target, nothing, mp.zero, nothing, mp.zero, nothing, mp.zero, dead=True
    )


def _loss(row, wanted, z_loss, cap, temperature, allowed, gamma):
    """The two terms of a row's loss, each with its gradient by the scores, and logsumexp."""
    row = [_number(z) for z in row]
    slopes = [mp.one] * len(row)
    if cap is not None:
        slopes = [1 - mp.tanh(z / _number(cap)) ** 2 for z in row]
        row = [_number(cap) * mp.tanh(z / _number(cap)) for z in row]
    p = softmax(row, temperature=temperature, where=allowed)
    log_p = log_softmax(row, temperature=temperature, where=allowed)
    log_total = logsumexp(row, temperature=temperature, where=allowed)

    def by_scores(gradient):
        """From z'' = cap tanh(z / cap) / T to z."""
        return [
            _times(_over(g, temperature), slope) if taken else mp.zero
            for g, slope, taken in zip(gradient, slopes, allowed, strict=True)
        ]

    # phi(u) = (1 - e^u)^gamma (-u) of u = log p_j, and its derivative, each times a_j
    missed = [-mp.expm1(u) for u in log_p]
    each = list(zip(wanted, log_p, missed, strict=True))
    entropy = mp.fsum(_times(a, m**gamma * -u) for a, u, m in each)
    pulls = [_times(a, _slope_of_phi(u, m, gamma)) for a, u, m in each]
    # d log p_j / d z_k = [j = k] - p_k, summed over j; the term j = k keeps its 1 - p_k
    total = mp.fsum(pulls)
    gradient = [g * m - q * (total - g) for g, m, q in zip(pulls, missed, p, strict=True)]
    square, by_square = mp.zero, [mp.zero] * len(row)
    if z_loss:
        square, by_square = z_loss * log_total**2, [2 * z_loss * log_total * q for q in p]
    return entropy, by_scores(gradient), square, by_scores(by_square), log_total


def _wanted(target, weights, smoothing, allowed):
    """a_j: the target's share, less what smoothing takes and spreads over the allowed classes."""
    shares = [mp.zero] * len(weights)
    if isinstance(target, tuple):
        for k, share in zip(*target, strict=True):
            shares[int(k)] += _number(share)
    elif np.ndim(target) == 0:
        shares[int(target)] = mp.one
    else:
        shares = [_number(share) for share in target]
    spread = [smoothing / sum(allowed) if taken else mp.zero for taken in allowed]
    return [
        w * ((1 - smoothing) * share + part)
        for w, share, part in zip(weights, shares, spread, strict=True)
    ]


def _slope_of_phi(u, missed, gamma):
    if u == mp.ninf or missed == 0:  # p = 0, p = 1
        return -mp.one if u == mp.ninf or gamma == 0 else mp.zero
    return gamma * missed ** (gamma - 1) * mp.exp(u) * u - missed**gamma


def reduced(parts, hard, reduction, empty="nan"):
    """(value, gradients) of LossRows: weighted, then as they are, summed, or averaged."""
    over_classes = over_rows = mp.one
    if reduction == "mean":
        over_rows = mp.fsum(part.sample_weight for part in parts)
        over_classes = mp.fsum(
            part.sample_weight * (part.class_weight if hard else 1) for part in parts
        )
        if over_rows == 0 or over_classes == 0:
            value = mp.nan if empty == "nan" else mp.zero
            return value, [[mp.zero] * len(part.entropy_gradient) for part in parts]
    losses = [
        _times(part.sample_weight, part.entropy / over_classes + part.square / over_rows)
        for part in parts
    ]
    gradients = [
        [
            _times(part.sample_weight, a / over_classes + b / over_rows)
            for a, b in zip(part.entropy_gradient, part.square_gradient, strict=True)
        ]
        for part in parts
    ]
    return (losses if reduction == "none" else mp.fsum(losses)), gradients


def linear_cross_entropy(features, weight, target, bias=None, sample_weight=None, **options):
    """(value, gradients by features, by weight, by bias) of the scores features weight^T + bias."""
    features = [[_number(x) for x in row] for row in features]
    weight = [[_number(w) for w in row] for row in weight]
    bias = [mp.zero] * len(weight) if bias is None else [_number(b) for b in bias]
    rows = [
        [mp.fdot(zip(x, w, strict=True)) + b for w, b in zip(weight, bias, strict=True)]
        for x in features
    ]
    value, gradients = cross_entropy(rows, target, sample_weight, **options)
    columns = list(zip(*gradients, strict=True))
    by_features = [[_dot(g, w) for w in zip(*weight, strict=True)] for g in gradients]
    by_weight = [[_dot(g, x) for x in zip(*features, strict=True)] for g in columns]
    return value, by_features, by_weight, [mp.fsum(g) for g in columns]


def _dot(g, x):
    return mp.fsum(_times(a, b) for a, b in zip(g, x, strict=True))


# Distances -------------------------------------------------------------------------------


def ulp(exact, dtype):
    """The unit in the last place of a number, as the type has it (subnormals included)."""
    info = finfo(dtype)
    if exact == 0:
        return mp.ldexp(1, info.minexp - info.nmant)
    return mp.ldexp(1, max(mp.mag(exact) - 1, int(info.minexp)) - int(info.nmant))


def ulps(actual, exact, dtype):
    """How far a result is from the exact number, in units in the last place of the latter.

    The same infinity, or NaN for NaN, is distance 0; infinity for a finite number is
    distance infinity, unless the number rounds to infinity in the type.
    """
    actual, exact = mp.mpf(float(actual)), mp.mpf(exact)
    largest = mp.mpf(float(finfo(dtype).max))
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
    info = finfo(dtype)
    deepest = float(np.log(float(info.smallest_subnormal)))  # exp is 0 a little below
    normal = rng.normal(size=classes)
    rows = {
        "plain": 3 * normal,
        "deep": rng.uniform(1.05 * deepest, 0, size=classes),
        "brink": deepest * rng.uniform(0.83, 1.02, size=classes),  # exp is subnormal
        "huge": min(1e30, float(info.max) / 8) * normal,
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


def targets(kind, count, classes, dtype=np.float64, seed=0, allowed=None):
    """Targets of one kind: "hard", "dense" (some shares are 0) or "sparse" (some classes twice).

    Only allowed classes are wanted; shares are of the type, and of a sparse row may be missing.
    """
    rng = np.random.default_rng([seed, count, classes])
    chance = rng.exponential(size=(count, classes))
    if allowed is not None:
        chance = np.where(allowed, chance, 0)
    best = chance.argmax(axis=-1)
    if kind == "hard":
        return best
    if kind == "sparse":
        indices = chance.argsort(axis=-1)[:, : -min(classes, 3) - 1 : -1]
        indices[:, -1] = best
        total = rng.choice([0.6, 1], size=(count, 1))
        return indices, _normalised(np.take_along_axis(chance, indices, axis=-1), total, dtype)
    chance[rng.random(chance.shape) < 0.5] = 0
    chance[np.arange(count), best] += 0.1
    return _normalised(chance, 1, dtype)


def _normalised(chance, total, dtype):
    return (total * chance / chance.sum(axis=-1, keepdims=True)).astype(dtype)


def loss_options(count, classes, seed=0):
    """A value for every option of a loss. In each row some class is allowed."""
    rng = np.random.default_rng([seed, count, classes])
    where = rng.random((count, classes)) < 0.7
    where[np.arange(count), rng.integers(classes, size=count)] = True
    return {
        "class_weight": rng.uniform(0.2, 3, size=classes),
        "sample_weight": rng.uniform(0.1, 2, size=count),
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "logit_cap": 4.0,
        "temperature": rng.uniform(0.5, 3, size=count),
        "where": where,
        "focal": 1.5,
    }
