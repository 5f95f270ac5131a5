"""python -m benchmarks NAME [--write]: print tables; --write also keeps them in RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib
import re
from pathlib import Path

from benchmarks.measure import machine

NAMES = ("functions", "losses", "train-table", "predict-table", "agreement")
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--write", action="store_true", help="keep the table in RESULTS.md")
    parser.add_argument(
        "--only", metavar="TEXT", help="of functions or losses: the lines that say this"
    )
    arguments = parser.parse_args()
    if arguments.only and (arguments.write or arguments.name not in ("functions", "losses")):
        parser.error("--only is for functions and losses, and RESULTS.md keeps whole tables")
    module = importlib.import_module(f"benchmarks.{arguments.name.replace('-', '_')}")
    found = module.run(arguments.only) if arguments.only else module.run()
    text = f"{found}\n\n{machine()}; {datetime.date.today()}."
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
