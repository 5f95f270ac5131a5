"""The command: parse, call, print. No mathematics, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"softly: the command needs {missing.name}, which is not installed: "
        "python -m pip install 'softly[cli]'"
    ) from None

if TYPE_CHECKING:
    import polars as pl

    from softly.models import Model
    from softly.solvers import Pass

DONE, WRONG_INPUT, FAILED = 0, 2, 1

app = typer.Typer(
    help="Turn scores into decisions: train a softmax classifier from a table, and use it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
notes = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, for a program.")]


@app.command(
    epilog="Examples:\n\n"
    "    softly train birds.csv --target species --model birds.skops\n\n"
    "    softly train birds.csv --target species --show-columns\n\n"
    "    softly train birds.csv --target species --model birds.skops "
    "--column year=category --drop island"
)
def train(
    data: Annotated[str, typer.Argument(help="The table; - is standard input.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    model: Annotated[Path | None, typer.Option(help="The model file to write (.skops).")] = None,
    test: Annotated[
        str | None, typer.Option(metavar="FILE", help="A table to score on, instead of a share.")
    ] = None,
    test_size: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="The share of rows held out for scoring.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Which rows are held out.")] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TYPE",
            help="What a column is: number, category, text, datetime, yes/no or identifier.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A column to leave out.")
    ] = None,
    show_columns: Annotated[
        bool, typer.Option("--show-columns", help="Only print what each column is taken for.")
    ] = False,
    C: Annotated[
        float, typer.Option("--C", help="Inverse strength of the penalty, above 0.")
    ] = 1.0,
    max_iter: Annotated[int, typer.Option(min=1, help="The most iterations.")] = 100,
    as_json: Json = False,
) -> None:
    """Train a classifier on a table and score it on rows it did not see."""
    from softly import files, report, tables

    if model is None and not show_columns:
        raise typer.BadParameter("say where to write the model, or ask to --show-columns")
    if not C > 0:
        raise typer.BadParameter(f"--C is {C:g}, but a number above 0 is needed")
    if model is not None:
        files.check_writable(model)
    frame = _read(data)
    kinds = dict(_name_and_type(text) for text in column or [])
    schema = tables.infer(frame, target, kinds, drop or [])
    if show_columns:
        if as_json:
            _print_json(schema.to_dict())
        else:
            report.draw_columns(_out(), schema)
        return
    held_out: float | pl.DataFrame = test_size if test is None else _read(test)

    from softly import models, training

    with _progress() as on_pass:
        done = training.train(
            frame,
            schema,
            test=held_out,
            seed=seed,
            C=C,
            max_iter=max_iter,
            on_pass=on_pass,
        )
    if not done.converged:
        notes.print(
            f"The fit stopped at {max_iter} iterations, a little short of the optimum: "
            "--max-iter allows more."
        )
    assert model is not None
    models.save(done.model, model)
    if as_json:
        _print_json(report.training_to_dict(done) | {"model": str(model)})
    else:
        report.draw_training(_out(), done)
        notes.print(f"\nWrote {model}", markup=False, soft_wrap=True)


@app.command(
    epilog="Examples:\n\n"
    "    softly predict birds.skops new.csv --output answers.csv\n\n"
    "    cat new.csv | softly predict birds.skops - | head\n\n"
    "    softly predict birds.skops new.parquet --output answers.parquet --top-k 2 --keep id,ring"
)
def predict(
    model: Annotated[Path, typer.Argument(help="A model that `softly train` wrote.")],
    data: Annotated[str, typer.Argument(help="The table; - is standard input.")],
    output: Annotated[
        str,
        typer.Option(help="A .csv, .tsv, .parquet or .jsonl file; - is standard output, as CSV."),
    ] = "-",
    top_k: Annotated[
        int | None, typer.Option(min=1, help="The best K classes instead of all probabilities.")
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="COLUMNS", help="Columns to carry over, parted by commas.")
    ] = "",
) -> None:
    """Predict the class of each row, with probabilities, in batches."""
    from softly import answers, files

    if output != "-":
        files.check_writable(output)
    loaded = _load(model)
    kept = [name for name in keep.split(",") if name]
    batches = _with_notes(loaded, files.batches(data, loaded.schema.numbers), kept)
    files.write(output, answers.answers(loaded, batches, top_k=top_k, keep=kept))


@app.command(
    epilog="Examples:\n\n"
    "    softly evaluate birds.skops labelled.csv\n\n"
    "    softly evaluate birds.skops labelled.csv --json | jq .model.accuracy"
)
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model that `softly train` wrote.")],
    data: Annotated[str, typer.Argument(help="A table with the target; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Score a model on a table whose classes are known."""
    from softly import files, report

    loaded = _load(model)
    batches = _with_notes(loaded, files.batches(data, loaded.schema.numbers), [])
    result = report.evaluate(loaded, batches)
    if as_json:
        _print_json(result.to_dict())
    else:
        report.draw_evaluation(_out(), result)


@app.command(epilog="Examples:\n\n    softly info\n\n    softly info --json")
def info(as_json: Json = False) -> None:
    """Say which kernels are in use, on how many threads, with which libraries."""
    from softly import models
    from softly.kernels import chosen, threads

    slow = chosen.name == "reference"
    facts: dict[str, Any] = {
        "kernels": chosen.name,
        "threads": 1 if slow else threads.count(),
        "versions": models.made_with(),
    }
    if as_json:
        _print_json(facts)
        return
    out = _out()
    out.print(f"softly {facts['versions']['softly']}")
    out.print(f"kernels: {chosen.name}" + (" (NumPy: the slow ones)" if slow else ""))
    out.print(f"threads: {facts['threads']}")
    for name, version in facts["versions"].items():
        if name != "softly":
            out.print(f"{name} {version}")


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and an exit status."""
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written")
    except BrokenPipeError:
        # Whoever read from us has gone, as `head` does: say nothing, and let Python's own
        # flush at exit find a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
    except MemoryError:
        _fail("there is not enough memory for this table")
    except Exception as error:
        from softly.files import TableError

        if isinstance(error, TableError):
            _fail(str(error), WRONG_INPUT)
        if os.environ.get("SOFTLY_TRACEBACK"):
            raise
        _fail(
            f"something unexpected went wrong ({type(error).__name__}: {error}); "
            "SOFTLY_TRACEBACK=1 shows where, for a report of it"
        )


def _fail(sentence: str, status: int = FAILED) -> None:
    print(f"softly: {sentence}", file=sys.stderr)
    raise SystemExit(status)


def _out() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False, indent=2))


def _read(path: str) -> pl.DataFrame:
    from softly import files

    with notes.status(f"Reading {path}") if notes.is_terminal else _nothing():
        frame = files.read(path)
    name = "standard input" if path == "-" else path
    notes.print(
        f"Read {frame.height:,} rows and {frame.width} columns from {name}",
        markup=False,
        soft_wrap=True,
    )
    return frame


def _load(path: Path) -> Model:
    from softly import models

    model = models.load(path)
    made = {k: v for k, v in model.versions.items() if k != "python"}
    changed = [f"{k} {v}" for k, v in made.items() if models.made_with().get(k) != v]
    if changed:
        notes.print(
            f"Note: {path} was made with {', '.join(changed)}; answers may differ slightly",
            markup=False,
            soft_wrap=True,
        )
    return model


def _with_notes(
    model: Model, frames: Iterator[pl.DataFrame], kept: list[str]
) -> Iterator[pl.DataFrame]:
    """The frames, with one note on columns the model has no use for."""
    for number, frame in enumerate(frames):
        extra = [name for name in model.schema.extra(frame) if name not in kept]
        if number == 0 and extra:
            more = f" and {len(extra) - 5} more" if len(extra) > 5 else ""
            notes.print(
                f"Note: columns the model does not know are ignored: {', '.join(extra[:5])}{more}",
                markup=False,
                soft_wrap=True,
            )
        yield frame


def _name_and_type(text: str) -> tuple[str, str]:
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--column {text} is not of the form NAME=TYPE")
    return name, kind


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _progress() -> Iterator[Any]:
    """A line on standard error that follows the passes; an interrupt says how far they came."""
    last: list[Pass] = []

    def said() -> str:
        return f"pass {last[-1].number}, loss {last[-1].objective:.5f}" if last else "no pass done"

    try:
        if notes.is_terminal:
            with notes.status("Training") as status:

                def on_pass(done: Pass) -> None:
                    last[:] = [done]
                    status.update(f"Training: {said()}")

                yield on_pass
        else:
            yield lambda done: last.__setitem__(slice(None), [done])
    except KeyboardInterrupt:
        _fail(f"interrupted at {said()}; no model was written")
    notes.print(f"Trained: {said()}")


if __name__ == "__main__":
    main()
