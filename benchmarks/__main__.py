"""python -m benchmarks NAME [--write]: print tables; --write also keeps them in RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib
import re
from pathlib import Path

from benchmarks.measure import machine

NAMES = ("functions", "losses", "train-table", "predict-table", "agreement", "fit", "calibration")
NAMES += ("pictures",)
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--write", action="store_true", help="keep the table in RESULTS.md")
    parser.add_argument(
        "--only",
        metavar="TEXT",
        help="of functions or losses: the lines that say this; of fit: names, with commas; of "
        "calibration: networks, tables, time or sets",
    )
    parser.add_argument("--limit", type=float, help="of fit: the most seconds of one fit (120)")
    parser.add_argument(
        "--optima",
        nargs="?",
        const="softly",
        choices=("softly", "reference"),
        help="of fit: find the optima, by softly's certified fits or by others, and keep them",
    )
    arguments = parser.parse_args()
    some = arguments.only and arguments.name != "fit"
    if some and (arguments.write or arguments.name not in ("functions", "losses", "calibration")):
        parser.error("--only is for some of the names, and RESULTS.md keeps whole tables")
    if arguments.name != "fit" and (arguments.limit or arguments.optima):
        parser.error("--limit and --optima are for fit")
    module = importlib.import_module(f"benchmarks.{arguments.name.replace('-', '_')}")
    options = {"only": arguments.only, "limit": arguments.limit, "optima": arguments.optima}
    options = {name: value for name, value in options.items() if value}
    if arguments.name == "fit":
        options["write"] = arguments.write  # it keeps its measurements as well
    found = module.run(**options)
    if arguments.optima:
        return
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
