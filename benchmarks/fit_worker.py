"""A contender with its data in a process of its own, which does one fit at a time when asked.

A fit that takes too long, or that takes its process down, then harms nobody else; and the data
is loaded once.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import warnings
from typing import Any, TextIO

from benchmarks.fit_data import Problem, problem
from benchmarks.fit_peers import CONTENDERS, Contender, Point, Question

PATIENCE = 20.0  # seconds beyond a fit's limit, for looking at what it found
START = 300.0  # seconds for loading
LIMIT, CRASH = "limit", "crash"


class Worker:
    """The process, from outside; it is started anew after a fit that took too long."""

    def __init__(self, data: str, C: float, l1_ratio: float, contender: str) -> None:
        self._what = [data, str(C), str(l1_ratio), contender]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fit_worker", *self._what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.trouble = str(self._answer(START).get("trouble", ""))  # why it can do nothing

    def fit(self, tolerance: float, enough: float, limit: float) -> dict[str, Any]:
        """The trace of a fit, (seconds, objective, steps), or what came in between.

        A fit that can be looked at on the way ends when its objective is not above `enough`.
        """
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        question = json.dumps({"tolerance": tolerance, "enough": enough, "limit": limit})
        try:
            self._process.stdin.write(f"{question}\n".encode())
        except BrokenPipeError:
            return {"trouble": self._crash()}
        return self._answer(limit + PATIENCE)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self.end()
            return {"trouble": LIMIT}
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"trouble": self._crash()}
        return answer

    def _crash(self) -> str:
        status = self._process.wait()
        return f"{CRASH}: {signal.Signals(-status).name if status < 0 else status}"


def main(data: str, C: str, l1_ratio: str, name: str) -> None:
    """The process, from inside: a line with a question in, a line with an answer out."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # what libraries print
    contender = next(c for c in CONTENDERS if c.name == name)
    asked = problem(data, float(C), float(l1_ratio))
    os.dup2(silence, 2)
    warm = answer(contender, asked.few(), tolerance=0.1, enough=-1.0, limit=1.0)
    say(answers, {"trouble": warm.get("trouble", "")})
    for line in sys.stdin:
        say(answers, answer(contender, asked, **json.loads(line)))


def answer(
    contender: Contender, asked: Problem, tolerance: float, enough: float, limit: float
) -> dict[str, Any]:
    trace: list[tuple[float, float, float]] = []

    def look(point: Point) -> float:
        return asked.objective(point.coef, point.intercept)

    def is_enough(point: Point) -> bool:
        return look(point) <= enough

    try:
        for point in contender.fit(asked, Question(tolerance, limit, is_enough)):
            trace.append((float(f"{point.seconds:.5g}"), look(point), point.steps))
    except Exception as error:
        return {"trouble": f"{type(error).__name__}: {error}".splitlines()[0][:120]}
    return {"trace": trace}


def say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
