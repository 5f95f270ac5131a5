"""Who is measured in `fit`: each library in its best configuration, with its own tolerance.

A contender is given a problem and a tolerance, and yields points: how long it had taken when it
stood where. Most yield one, the end of a fit.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.fit_data import Array, Problem

OURS = "softly"
MANY = 100_000  # iterations: the tolerance ends a fit, or our patience does
MOST_CURVATURE = 20_000  # coefficients whose second derivatives still fit into memory
FEW = 1_000  # coefficients: second derivatives cost little
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Point:
    """Where a fit stood, after so many seconds of its own."""

    seconds: float
    coef: Array  # (K, D)
    intercept: Array
    steps: float  # passes over the data, or what the library counts


@dataclass(frozen=True)
class Question:
    """One fit to be done: when it is good enough, and how long it may take."""

    tolerance: float
    limit: float
    enough: Callable[[Point], bool]


Fit = Callable[[Problem, Question], Iterator[Point]]


@dataclass(frozen=True)
class Contender:
    """A library's solver."""

    name: str
    fit: Fit
    tolerances: tuple[float, ...]  # from loose to tight
    l1: bool = False  # whether it knows the L1 penalty
    dense: bool = True  # whether it is tried on dense data
    float64: bool = True  # whether it is tried on data of that type
    needs: str = "sklearn"
    curvature: bool = False  # whether it holds all second derivatives at once

    def refusal(self, problem: Problem) -> str:
        """Why it cannot do this problem; nothing if it can."""
        if problem.l1_ratio and not self.l1:
            return "no L1 penalty"
        if not self.dense and not sp.issparse(problem.X):
            return "only tried on sparse data"
        if not self.float64 and problem.X.dtype == np.float64:
            return "the data is float64"
        if importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        size = coefficients(problem)
        if self.curvature and size > MOST_CURVATURE:
            return f"not possible: {size}² second derivatives are {8 * size**2 / 2**30:.3g} GiB"
        return ""

    def leads(self, problem: Problem) -> bool:
        """Whether it goes first: how long the rest may take depends on who is fast."""
        return self.name == OURS or (self.curvature and coefficients(problem) <= FEW)


def coefficients(problem: Problem) -> int:
    features: int = problem.X.shape[1]
    return problem.n_classes * (features + 1)


def powers(first: int, last: int) -> tuple[float, ...]:
    return tuple(float(f"1e{power}") for power in range(first, last - 1, -1))


# A whole fit: an estimator made for a problem and a tolerance -----------------------------------


def whole(make: Callable[[Problem, float], Any]) -> Fit:
    def fit(problem: Problem, question: Question) -> Iterator[Point]:
        model = make(problem, question.tolerance)
        began = time.perf_counter()
        model.fit(problem.X, problem.y)
        seconds = time.perf_counter() - began
        coef = np.asarray(model.coef_).reshape(-1, problem.X.shape[1])
        steps = getattr(model, "n_passes_", None) or np.max(model.n_iter_)
        yield Point(seconds, coef, np.ravel(model.intercept_), float(steps))

    return fit


def softly(problem: Problem, tolerance: float) -> Any:
    from softly import SoftmaxClassifier

    mixed: dict[str, Any] = {"l1_ratio": problem.l1_ratio} if problem.l1_ratio else {}
    return SoftmaxClassifier(C=problem.C, tol=tolerance, max_iter=MANY, **mixed)


def sklearn(solver: str) -> Callable[[Problem, float], Any]:
    def make(problem: Problem, tolerance: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(
            C=problem.C,
            l1_ratio=problem.l1_ratio,
            solver=solver,
            tol=tolerance,
            max_iter=MANY,
            random_state=0,
        )

    return make


def cyanure(solver: str) -> Callable[[Problem, float], Any]:
    """(1/N) sum CE + lambda_1 |W|_1 + lambda_2/2 |W|^2: ours; its intercepts are free as well.

    The gap of its own is looked at every second pass: a fit that is done ends sooner, for little.
    The solver that it chooses itself stalls on sparse data, and most others end the process there.
    """

    def make(problem: Problem, tolerance: float) -> Any:
        from cyanure.estimators import Classifier

        class Transposed(Classifier):  # type: ignore[misc]
            """With the coefficients as everybody else has them."""

            def fit(self, X: Any, y: Any, le_parameter: Any = None) -> Any:
                super().fit(X, y, le_parameter)
                self.coef_: Array = self.coef_.T
                return self

            _get_param_names = Classifier._get_param_names

        strength, share = problem.strength, problem.l1_ratio
        penalties = {
            0.0: {"penalty": "l2", "lambda_1": strength},
            1.0: {"penalty": "l1", "lambda_1": strength},
        }
        both = {"lambda_1": share * strength, "lambda_2": (1 - share) * strength}
        return Transposed(
            loss="multiclass-logistic",
            solver=solver,
            tol=tolerance,
            max_iter=MANY,
            duality_gap_interval=2,
            n_threads=CORES,
            verbose=False,
            **penalties.get(share, {"penalty": "elasticnet", **both}),
        )

    return make


def in_float64(fit: Fit) -> Fit:
    """On data that is made float64, in the fit's time: where float32 stalls short of a gap."""

    def wide(asked: Problem, question: Question) -> Iterator[Point]:
        began = time.perf_counter()
        exact = Problem(asked.X.astype(np.float64), asked.y, asked.C, asked.l1_ratio)
        seconds = time.perf_counter() - began
        for point in fit(exact, question):
            yield replace(point, seconds=point.seconds + seconds)

    return wide


# PyTorch: one long fit, looked at on the way ----------------------------------------------------

LOOK = 10  # iterations from one look at the objective to the next, which is not timed


def pytorch(problem: Problem, question: Question) -> Iterator[Point]:
    """Full-batch L-BFGS; its tolerance is tight, since a look on the way tells as much."""
    import torch

    torch.set_num_threads(CORES)
    began = time.perf_counter()
    scores = _linear(problem.X)
    y = torch.from_numpy(problem.y)
    dtype = torch.from_numpy(problem.X[:1].toarray() if sp.issparse(problem.X) else problem.X).dtype
    weight = torch.zeros((problem.n_classes, problem.X.shape[1]), dtype=dtype, requires_grad=True)
    bias = torch.zeros(problem.n_classes, dtype=dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        lr=1,
        max_iter=LOOK,
        max_eval=50 * LOOK,
        tolerance_grad=question.tolerance,
        tolerance_change=0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Any:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(scores(weight) + bias, y)
        loss = loss + problem.strength / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    seconds, before = time.perf_counter() - began, -1.0
    while seconds < question.limit:
        began = time.perf_counter()
        solver.step(closure)  # type: ignore[no-untyped-call]
        seconds += time.perf_counter() - began
        state = solver.state[weight]
        steps = float(state["n_iter"])
        point = Point(seconds, weight.detach().numpy().copy(), bias.detach().numpy().copy(), steps)
        yield point
        if question.enough(point) or steps < before + LOOK:
            return
        before = steps


def _linear(X: Any) -> Callable[[Any], Any]:
    """X @ weight.T, with X.T at hand for the way back where X is sparse."""
    import torch

    if not sp.issparse(X):
        rows = torch.from_numpy(X)
        return lambda weight: rows @ weight.T

    def tensor(x: Any) -> Any:
        parts = (torch.from_numpy(part) for part in (x.indptr, x.indices, x.data))
        return torch.sparse_csr_tensor(*parts, size=x.shape)  # type: ignore[misc, arg-type]

    forward, back = tensor(X), tensor(X.T.tocsr())

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, weight: Any) -> Any:
            return forward @ weight.T

        @staticmethod
        def backward(context: Any, *slope: Any) -> Any:
            return (back @ slope[0]).T

    apply: Callable[[Any], Any] = Product.apply
    return apply


CONTENDERS = (  # first those that tell soonest how long the rest may take
    Contender(OURS, whole(softly), powers(2, -7), l1=True, needs="softly"),
    Contender("PyTorch", pytorch, (1e-9,), needs="torch"),
    Contender("Cyanure", whole(cyanure("auto")), powers(-1, -7), l1=True, needs="cyanure"),
    Contender(
        "Cyanure, float64",
        in_float64(whole(cyanure("auto"))),
        powers(-1, -7),
        l1=True,
        float64=False,
        needs="cyanure",
    ),
    Contender("lbfgs", whole(sklearn("lbfgs")), powers(-2, -7)),
    Contender("newton-cholesky", whole(sklearn("newton-cholesky")), powers(-2, -6), curvature=True),
    Contender("newton-cg", whole(sklearn("newton-cg")), powers(-2, -6)),
    Contender("sag", whole(sklearn("sag")), powers(-1, -6)),
    Contender("saga", whole(sklearn("saga")), powers(-1, -6), l1=True),
    Contender(
        "Cyanure, FISTA",
        whole(cyanure("fista")),
        powers(-2, -6),
        l1=True,
        dense=False,
        needs="cyanure",
    ),
)
