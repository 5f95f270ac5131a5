"""python -m benchmarks NAME [--write]: print a table; --write also keeps it in RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib
import re
from pathlib import Path

from benchmarks.measure import machine

NAMES = ("softmax", "train-table", "predict-table", "agreement")
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--write", action="store_true", help="keep the table in RESULTS.md")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.{arguments.name.replace('-', '_')}")
    text = f"{module.run()}\n\n{machine()}; {datetime.date.today()}."
    print(text)
    if arguments.write:
        keep(arguments.name, text)


def keep(name: str, text: str) -> None:
    """Put a table in its section of RESULTS.md, in the place of an older one."""
    results = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    section = f"## {name}\n\n`python -m benchmarks {name}`\n\n{text}\n"
    old = re.compile(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", re.M | re.S)
    if old.search(results):
        results = old.sub(lambda _: section + "\n", results)
    else:
        results += "\n" + section
    RESULTS.write_text(results.rstrip() + "\n")


main()
