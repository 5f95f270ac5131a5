"""Fits of a softmax classifier beside all that can be had: seconds to a gap to the optimum.

Each library's own tolerance is swept from loose to tight. The objective of what it found is
computed by one float64 routine for all, and its gap is to the optimum of a long float64 run.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import fit_optima, fit_parts
from benchmarks.fit_data import problem
from benchmarks.fit_peers import CONTENDERS, OURS, Contender
from benchmarks.fit_worker import CRASH, LIMIT, Worker
from benchmarks.measure import duration, table

GAPS = (1e-3, 1e-4, 1e-6)
BAR_GAP = 1e-4
LEAST_LIMIT = 8.0  # seconds
MARGIN = 1.1  # times what the bar asks
BEATEN = 2.0  # times the fastest peer: who takes longer is stopped
IN_ALL = 1.5  # limits that all fits of one sweep may take together
QUICK = 2.0  # seconds of a fit that is measured three times
REPEATS = 3
FINER = 2  # bisections between a tolerance that missed a gap and one that reached it
LOOSER, LOOSEST = 100, 1e9  # times, up to: tolerances beyond the loosest
STALLED = 7  # fits that end at the same objective, whatever the tolerance

ENOUGH = "enough"  # was tried of one contender

KEPT = Path(__file__).with_name("fit.json")
PLOT = Path(__file__).with_name("fit.svg")

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A problem, and how many times our time its peers shall take."""

    data: str
    title: str
    C: float
    bar: float
    l1_ratio: float = 0.0
    against: str = ""  # the fastest peer, unless said
    name: str = ""  # as --only says it, if not that of the data

    @property
    def key(self) -> str:
        return fit_optima.key(*self.problem)

    @property
    def problem(self) -> tuple[str, float, float]:
        return self.data, self.C, self.l1_ratio

    def asked(self, names: list[str]) -> bool:
        return (self.name or self.data) in names


BARS = (
    ("covtype", "covtype, standardised", 10),
    ("covtype-raw", "covtype, raw columns", 30),
    ("mnist-float32", "mnist / 255, float32", 10),
    ("mnist-float64", "mnist / 255, float64", 10),
    ("letter", "letter, standardised", 8),
    ("banking77", "banking77 embeddings, float32", 5),
    ("news20", "news20 TF-IDF, sparse, float32", 5),
)
SPARSE = "news20 TF-IDF, sparse, float32"
CASES = [
    *(Case(data, title, C, bar) for data, title, bar in BARS for C in (1.0, 100.0)),
    Case("news20", f"{SPARSE}, L1", 1.0, 15, 1.0, "saga", "news20-l1"),
    Case("news20", f"{SPARSE}, elastic net", 1.0, 15, 0.5, "saga", "news20-elastic"),
]
NAMES = [*dict.fromkeys(case.name or case.data for case in CASES), *fit_parts.PARTS]


def run(only: str = "", *, write: bool = False, limit: float = 120.0, optima: str = "") -> str:
    names = only.split(",") if only else NAMES
    if unknown := set(names) - set(NAMES):
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    cases = [case for case in CASES if case.asked(names)]
    if optima:
        return fit_optima.make([case.problem for case in cases], optima)
    if missing := [case.key for case in cases if case.key not in fit_optima.known()]:
        raise SystemExit(f"--optima finds the optima that are not known: {'; '.join(missing)}")
    kept: Json = json.loads(KEPT.read_text()) if write and KEPT.exists() else {}
    for case in cases:
        kept[case.key] = measured(case, limit)
        keep(kept, write)
    for part in [name for name in fit_parts.PARTS if name in names]:
        kept[part] = fit_parts.PARTS[part]()
        keep(kept, write)
    if write:
        from benchmarks import fit_plot

        fit_plot.draw([panel(case, kept[case.key]) for case in CASES if case.key in kept], PLOT)
    return "\n\n".join(texts(kept))


def keep(kept: Json, write: bool) -> None:
    """After each case, since the whole takes long."""
    if write:
        KEPT.write_text(json.dumps(kept, separators=(",", ":")).replace('"efforts"', '\n"efforts"'))


# Measuring ---------------------------------------------------------------------------------------


def measured(case: Case, limit: float) -> Json:
    """All contenders on one problem: their sweeps, the quick ones of them repeated in turns."""
    optimum = optimum_of(case)
    shape, lineup = contenders(case)
    sweeps: dict[str, Json] = {}
    with ExitStack() as living:
        workers: dict[str, Worker] = {}
        for contender, refusal in lineup:
            name = contender.name
            if refusal:
                sweeps[name] = {"efforts": [], "ended": refusal}
                continue
            workers[name] = worker = Worker(*case.problem, name)
            living.callback(worker.end)
            allowed = patience(case, name, sweeps, optimum, limit)
            sweeps[name] = sweep(contender, worker, optimum, allowed)
            print(f"{case.key}: {name}: {said(sweeps[name], optimum)}", file=sys.stderr)
            if not any(matters(sweeps[name], optimum)):
                worker.end()
        again(sweeps, workers, optimum)
    return {"shape": shape, "contenders": sweeps}


def contenders(case: Case) -> tuple[list[int], list[tuple[Contender, str]]]:
    """N, D and K, and who is to do it in which order, with the reason if not."""
    asked = problem(*case.problem)
    order = sorted(CONTENDERS, key=lambda contender: not contender.leads(asked))
    return [*asked.X.shape, asked.n_classes], [(c, c.refusal(asked)) for c in order]


def sweep(contender: Contender, worker: Worker, optimum: float, limit: float) -> Json:
    """One fit for each tolerance, until the least gap is reached or there is no hope for it.

    Where the loosest one reaches the bar's gap already, so may one that is looser.
    """
    found: Json = {"efforts": [], "ended": worker.trouble, "limit": limit}
    efforts: list[Json] = found["efforts"]
    for tolerance in () if worker.trouble else contender.tolerances:
        found["ended"] = tried(worker, tolerance, efforts, optimum, limit)
        last = [end_of(effort)[1] for effort in efforts[-STALLED:]]
        stalled = len(last) == STALLED and len(set(last)) == 1
        if found["ended"] or stalled or last[-1] <= near(optimum, min(GAPS)):
            break
    looser = max(contender.tolerances, default=0.0)
    while efforts and seconds_of(BAR_GAP, efforts[0], optimum) is not None and looser < LOOSEST:
        looser *= LOOSER
        tried(worker, looser, efforts, optimum, limit)
        efforts.sort(key=lambda effort: -effort["tolerance"])
    if not worker.trouble and CRASH not in found["ended"]:
        refine(worker, efforts, optimum, limit)
    return found


def tried(
    worker: Worker, tolerance: float, efforts: list[Json], optimum: float, limit: float
) -> str:
    """One fit, put to the others; why there shall be no tighter one."""
    answer = worker.fit(tolerance, near(optimum, min(GAPS)), limit)
    if "trace" not in answer:
        return str(answer["trouble"])
    efforts.append({"tolerance": tolerance, "traces": [answer["trace"]]})
    spent = [end_of(effort)[0] for effort in efforts]
    if spent[-1] >= limit:
        return LIMIT
    return ENOUGH if sum(spent) > IN_ALL * limit else ""


def refine(worker: Worker, efforts: list[Json], optimum: float, limit: float) -> None:
    """Tolerances between the last that missed a gap and the first that reached it."""
    for gap in GAPS:
        for tries in range(FINER):
            efforts.sort(key=lambda effort: -effort["tolerance"])
            hits = [seconds_of(gap, effort, optimum) is not None for effort in efforts]
            if True not in hits or hits[0]:
                break
            missed, reached = efforts[hits.index(True) - 1], efforts[hits.index(True)]
            if end_of(reached)[0] > QUICK and (gap != BAR_GAP or tries):
                break
            between = math.sqrt(missed["tolerance"] * reached["tolerance"])
            tried(worker, between, efforts, optimum, limit)


def near(optimum: float, gap: float) -> float:
    return optimum * (1 + gap)


def end_of(effort: Json) -> tuple[float, float]:
    """Seconds and objective of a fit."""
    seconds, objective, _ = effort["traces"][0][-1]
    return seconds, objective


def patience(case: Case, name: str, sweeps: dict[str, Json], optimum: float, limit: float) -> float:
    """How long a fit may take: not much longer than the fastest peer's, or than the bar asks."""
    times = {who: seconds_to(BAR_GAP, s, optimum) for who, s in sweeps.items()}
    ours, peers = times.pop(OURS, None), [t for t in times.values() if t is not None]
    if name == OURS or (ours is None and not peers):
        return limit
    by_bar = MARGIN * case.bar * ours if ours is not None else limit
    allowed = max(LEAST_LIMIT, BEATEN * min(peers) if peers else by_bar)
    if name == case.against:
        allowed = max(allowed, by_bar)
    return min(limit, allowed)


def matters(found: Json, optimum: float) -> Iterator[Json]:
    """The efforts by which gaps were reached first, if quick: these are measured again."""
    for effort in found["efforts"]:
        for gap in GAPS:
            seconds = seconds_of(gap, effort, optimum)
            if seconds is not None and seconds == seconds_to(gap, found, optimum):
                if end_of(effort)[0] < QUICK:
                    yield effort
                break


def again(sweeps: dict[str, Json], workers: dict[str, Worker], optimum: float) -> None:
    quick = [(name, e) for name, found in sweeps.items() for e in matters(found, optimum)]
    for _ in range(REPEATS - 1):
        for name, effort in quick:
            time.sleep(0.02)  # threads of the one before may still spin
            answer = workers[name].fit(effort["tolerance"], near(optimum, min(GAPS)), 10 * QUICK)
            if "trace" in answer:
                effort["traces"].append(answer["trace"])


# What was found -----------------------------------------------------------------------------------


def optimum_of(case: Case) -> float:
    return float(fit_optima.known()[case.key]["objective"])


def seconds_to(gap: float, found: Json, optimum: float) -> float | None:
    """The least seconds in which a contender came as near to the optimum; None if it never did."""
    times = [seconds_of(gap, effort, optimum) for effort in found["efforts"]]
    return min((t for t in times if t is not None), default=None)


def seconds_of(gap: float, effort: Json, optimum: float) -> float | None:
    """The median over repetitions of one effort."""
    times = [next((s for s, f, _ in t if f <= near(optimum, gap)), None) for t in effort["traces"]]
    reached = [t for t in times if t is not None]
    return statistics.median(reached) if len(reached) == len(times) else None


def steps_to(gap: float, found: Json, optimum: float) -> float | None:
    """Passes over the data in the fit of `seconds_to`."""
    seconds = seconds_to(gap, found, optimum)
    for effort in found["efforts"]:
        if seconds is not None and seconds_of(gap, effort, optimum) == seconds:
            return next(float(n) for _, f, n in effort["traces"][0] if f <= near(optimum, gap))
    return None


def longest(found: Json) -> float:
    """The longest fit that was tried; a contender that was stopped takes longer than that."""
    ends = [end_of(effort)[0] for effort in found["efforts"]]
    return max([*ends, found["limit"]] if found["ended"] == LIMIT else ends, default=0.0)


def is_cut(found: Json) -> bool:
    """Whether a longer fit was not tried, or not to its end."""
    return found["ended"] in (LIMIT, ENOUGH)


def least(found: Json) -> float:
    return float(min(f for effort in found["efforts"] for t in effort["traces"] for _, f, _ in t))


def said(found: Json, optimum: float, gap: float = BAR_GAP) -> str:
    """When a contender reached the gap, or why it did not."""
    seconds = seconds_to(gap, found, optimum)
    if seconds is not None:
        return duration(seconds)
    if is_cut(found):
        return f"> {duration(longest(found))}"
    if found["efforts"]:
        why = f" ({found['ended']})" if found["ended"] else ""
        return f"ends at {least(found) / optimum - 1:.0e}{why}"
    return str(found["ended"])


# Tables -------------------------------------------------------------------------------------------

NOTE = f"""\
Seconds of a fit from data in memory to coefficients, on all cores; the least among the fits of a \
sweep of the library's own tolerance (PyTorch: looked at every 10 iterations on the way, which is \
not timed) whose objective is within the gap. Objective: scikit-learn's, divided by C times N, by \
one float64 routine; its optimum is of a long float64 run (`optima.json`). lbfgs, newton-cg, \
newton-cholesky, saga and sag are scikit-learn's. Fits below {QUICK:g} s are medians of {REPEATS}, \
in turns; the data is loaded, and a fit of a few rows done, before. A fit that takes {BEATEN:g} x \
the fastest peer's time to a gap of {BAR_GAP:g} (and {LEAST_LIMIT:g} s) is stopped: "> 30 s". \
Passes are softly's over the data. In `fit.svg`: gap against seconds."""


def texts(kept: Json) -> Iterator[str]:
    cases = [case for case in CASES if case.key in kept]
    if cases:
        yield "### Seconds to a gap of 1e-3, 1e-4 and 1e-6\n\n" + table(
            [
                *("", "C", "softly", "passes", "fastest peer at 1e-3", "at 1e-4", "at 1e-6"),
                *("ratios", "bar at 1e-4", ""),
            ],
            [summary(case, kept[case.key]) for case in cases],
        )
        header = ["", "C", *(contender.name for contender in CONTENDERS)]
        rows = [everybody(case, kept[case.key]) for case in cases]
        yield f"### Seconds to a gap of {BAR_GAP:g}\n\n{table(header, rows)}"
        yield "\n".join(["Is the optimum one? " + best_of_all(cases, kept), "", NOTE])
    for part in fit_parts.PARTS:
        if part in kept:
            yield kept[part]


def heading(case: Case, found: Json) -> list[str]:
    n, d, classes = found["shape"]
    return [f"{case.title} ({n} x {d}, K {classes})", f"{case.C:g}"]


def summary(case: Case, found: Json) -> list[str]:
    optimum = optimum_of(case)
    sweeps = found["contenders"]
    ours = sweeps[OURS]
    times = [seconds_to(gap, ours, optimum) for gap in GAPS]
    passes = [steps_to(gap, ours, optimum) for gap in GAPS]
    rivals = [fastest(gap, sweeps, optimum) for gap in GAPS]
    ratios = [
        "" if mine is None or theirs is None else f"{theirs[1] / mine:.3g}"
        for mine, theirs in zip(times, rivals, strict=True)
    ]
    return [
        *heading(case, found),
        " / ".join(said(ours, optimum, gap) for gap in GAPS),
        " / ".join("" if n is None else f"{n:.3g}" for n in passes),
        *("none" if r is None else f"{r[0]} {duration(r[1])}" for r in rivals),
        " / ".join(ratios),
        *verdict(case, sweeps, optimum),
    ]


def fastest(gap: float, sweeps: dict[str, Json], optimum: float) -> tuple[str, float] | None:
    times = [(who, seconds_to(gap, s, optimum)) for who, s in sweeps.items() if who != OURS]
    reached = [(who, t) for who, t in times if t is not None]
    return min(reached, key=lambda one: one[1], default=None)


def verdict(case: Case, sweeps: dict[str, Json], optimum: float) -> list[str]:
    """The bar, and whether it is met: by a peer's time, or by the time it had when stopped."""
    peers = {who: s for who, s in sweeps.items() if who != OURS and case.against in ("", who)}
    bar = f"{case.bar:g}"
    ours, rival = seconds_to(BAR_GAP, sweeps[OURS], optimum), fastest(BAR_GAP, peers, optimum)
    cut = [longest(s) for s in peers.values() if is_cut(s)]
    if ours is None:
        return [bar, "missed"]
    theirs = rival[1] if rival else min(cut, default=0.0)
    if case.against:
        bar += f" ({case.against}: {'' if rival else '> '}{theirs / ours:.3g})"
    if theirs >= case.bar * ours:
        return [bar, "met"]
    return [bar, "missed" if rival or not cut else "not decided: raise --limit"]


def everybody(case: Case, found: Json) -> list[str]:
    sweeps, optimum = found["contenders"], optimum_of(case)
    cells = [said(sweeps[c.name], optimum) if c.name in sweeps else "" for c in CONTENDERS]
    return [*heading(case, found), *cells]


def best_of_all(cases: list[Case], kept: Json) -> str:
    """No contender may ever be below the optimum by more than rounding."""
    below = []
    for case in cases:
        for who, found in kept[case.key]["contenders"].items():
            if found["efforts"] and least(found) < optimum_of(case) * (1 - fit_optima.ROUNDING):
                gap = least(found) / optimum_of(case) - 1
                below.append(f"{who} is {-gap:.0e} below it on {case.key}")
    return f"No: {'; '.join(below)}." if below else "Nobody found an objective below it."


def panel(case: Case, found: Json) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """What the plot shows of a case: (seconds, gap) of each contender."""
    optimum = optimum_of(case)
    lines = {
        who: sorted(point for effort in found["efforts"] for point in points(effort, optimum))
        for who, found in found["contenders"].items()
    }
    return f"{case.title}, C = {case.C:g}", {who: line for who, line in lines.items() if line}


def points(effort: Json, optimum: float) -> Iterator[tuple[float, float]]:
    """Median seconds, and gap."""
    for same in zip(*effort["traces"], strict=False):
        yield statistics.median(seconds for seconds, _, _ in same), same[0][1] / optimum - 1
