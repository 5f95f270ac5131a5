"""The command: parse, call, print. No mathematics, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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

    from softly.classifier_cv import SearchStep
    from softly.models import Model
    from softly.solvers.result import Pass
    from softly.subjects import Subject

WRONG_INPUT, FAILED = 2, 1  # exit statuses beside 0, which is done
_SECONDS = 5.0  # between lines on the passes, where standard error is no terminal

# Help without boxes: they leave too little of a narrow terminal to read in.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
_USUAL_WIDTH = 80
notes = Console(stderr=True, highlight=False)


def _examples(*lines: str) -> str:
    """One example a line, however long: \b keeps the paragraph from being wrapped."""
    return "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in lines)


def _needs(needed: str, holds: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """A check of an option's value that says what is needed and what came."""

    def check(value: Any) -> Any:
        if value is not None and not holds(value):
            raise typer.BadParameter(f"{value:g} was given, but {needed} is needed")
        return value

    return check


def _one_of(*names: str) -> Callable[[Any], Any]:
    """A check that an option's value is one of some."""

    def check(value: Any) -> Any:
        if value is not None and value not in names:
            raise typer.BadParameter(f"{value} was given, but one of {', '.join(names)} is needed")
        return value

    return check


def _language(code: str) -> str:
    """A check that there is such a language."""
    from softly import languages

    try:
        languages.texts(code)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return code


def _version(asked: bool) -> None:
    if asked:
        import softly

        print(f"softly {softly.__version__}")
        raise typer.Exit


Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, for a program.")]


@app.callback(
    epilog=_examples(
        "softly train birds.csv --target kind --model birds.skops",
        "softly predict birds.skops new.csv --output answers.csv",
        "softly evaluate birds.skops labelled.csv",
        "softly report birds.skops labelled.csv --output report.html",
        "softly calibrate logits.npy labels.npy --model cal.json",
        "softly explain 2.0 1.0 0.1",
    )
)
def softly_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Turn scores into decisions: train a softmax classifier from a table, and use it.

    Tables are CSV, TSV, Parquet, JSON lines, Excel or Arrow files.
    """


@app.command(
    epilog=_examples(
        "softly train birds.csv --target kind --model m.skops",
        "softly train birds.csv --target kind --show-columns",
        "softly train birds.csv --target kind --model m.skops --drop ring",
        "softly train birds.csv --target kind --model m.skops --column year=category",
    )
)
def train(
    data: Annotated[str, typer.Argument(help="The table; - is standard input.")],
    target: Annotated[str, typer.Option(metavar="NAME", help="The column to predict.")],
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The model file to write, a .skops file.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="FILE", help="A table to score on, instead of a share.")
    ] = None,
    test_size: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            callback=_needs("a number from 0.01 to 0.9", lambda share: 0.01 <= share <= 0.9),
            help="The share of rows held out for scoring.",
        ),
    ] = 0.2,
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            callback=_needs("a whole number from 0 to 4294967295", lambda n: 0 <= n < 2**32),
            help="Which rows are held out.",
        ),
    ] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TYPE",
            help="What a column is: number, category, text, datetime, yes/no or identifier. "
            "May be given again.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A column to leave out. May be given again."),
    ] = None,
    show_columns: Annotated[
        bool, typer.Option("--show-columns", help="Only print what each column is taken for.")
    ] = False,
    C: Annotated[
        float | None,
        typer.Option(
            "--C",
            metavar="NUMBER",
            callback=_needs("a number above 0", lambda C: C > 0),
            help="Inverse strength of the penalty, instead of the best of ten by "
            "cross-validation in five folds (of 20,000 rows, if there are more).",
        ),
    ] = None,
    max_iter: Annotated[
        int,
        typer.Option(
            metavar="N",
            callback=_needs("a whole number from 1 up", lambda n: n >= 1),
            help="The most iterations.",
        ),
    ] = 100,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            callback=_one_of("auto", "identity", "temperature", "vector", "matrix"),
            help="Calibrate the probabilities on a fifth of the training rows: auto, temperature, "
            "vector or matrix.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a classifier, and score it on rows it did not see."""
    kinds = dict(_name_and_type(text) for text in column or [])
    if model is None and not show_columns:
        raise typer.BadParameter("say where to write the model: --model FILE.skops")

    from softly import evaluation, outputs, tables, terminal
    from softly.errors import TableError

    if model is not None:
        if model.suffix != ".skops":
            raise TableError(f"the model file '{model}' needs a name that ends in .skops")
        outputs.check_writable(model)
    frame = _read(data)
    schema = tables.infer(frame, target, kinds, drop or [])
    if show_columns or model is None:
        if as_json:
            _print_json(schema.to_dict())
        else:
            terminal.draw_columns(_out(), schema)
        return

    from softly import models, training

    held_out: float | pl.DataFrame = test_size if test is None else _read(test)
    with _status("Preparing the features"):
        prepared = training.prepare(frame, schema, test=held_out, seed=seed)
    del frame, held_out  # the fit needs the memory
    with _warnings_noted(), _progress() as on_step:
        done = training.fit(prepared, C=C, max_iter=max_iter, calibrate=calibrate, on_step=on_step)
    if not done.converged:
        _note(f"The fit stopped short of the optimum at --max-iter {max_iter}: allow more.")
    models.save(done.model, model)
    if as_json:
        _print_json(evaluation.training_to_dict(done) | {"model": str(model)})
    else:
        terminal.draw_training(_out(), done)
    _note(f"Wrote {model}")


@app.command(
    epilog=_examples(
        "softly predict m.skops new.csv --output answers.csv",
        "softly predict m.skops new.csv --top-k 2 --keep ring,year",
        "cat new.csv | softly predict m.skops - | head",
    )
)
def predict(
    model: Annotated[Path, typer.Argument(help="A model that `softly train` wrote.")],
    data: Annotated[str, typer.Argument(help="The table; - is standard input.")],
    output: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="A .csv, .tsv, .parquet or .jsonl file; - is standard output, as CSV.",
        ),
    ] = "-",
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            callback=_needs("a whole number from 1 up", lambda k: k >= 1),
            help="The best K classes instead of all probabilities.",
        ),
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="COLUMNS", help="Columns to carry over, parted by commas.")
    ] = "",
) -> None:
    """Predict the class of each row, with probabilities, in batches."""
    from softly import answers, files, outputs
    from softly.errors import TableError

    if output != "-":
        outputs.check_writable(output)
        if data != "-" and Path(output).exists() and os.path.samefile(data, output):
            raise TableError(f"'{output}' is the table itself: write the answers elsewhere")
    loaded = _load(model)
    if top_k and top_k > len(loaded.classes):
        _note(f"Note: the model has {len(loaded.classes)} classes: --top-k {top_k} gives them all")
    kept = [name.strip() for name in keep.split(",") if name.strip()]
    # What is kept is kept as it was written: a number of a CSV file, too, stays text.
    numbers = [name for name in loaded.schema.numbers if name not in kept]
    batches = _with_notes(loaded, files.batches(data, numbers), kept)
    outputs.write(output, answers.answers(loaded, batches, top_k=top_k, keep=kept))


@app.command(
    epilog=_examples(
        "softly evaluate m.skops labelled.csv",
        "softly evaluate m.skops labelled.csv --json",
    )
)
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model that `softly train` wrote.")],
    data: Annotated[str, typer.Argument(help="A table with the target; - is standard input.")],
    as_json: Json = False,
) -> None:
    """Score a model on a table whose classes are known."""
    from softly import evaluation, files, terminal

    loaded = _load(model)
    batches = _with_notes(loaded, files.batches(data, loaded.schema.numbers), [])
    result = evaluation.evaluate(loaded, batches)
    if as_json:
        _print_json(result.to_dict())
    else:
        terminal.draw_evaluation(_out(), result)


@app.command(
    epilog=_examples(
        "softly calibrate logits.npy labels.npy --model cal.json",
        "softly calibrate p.npy labels.npy --probabilities --model cal.json",
        "softly calibrate logits.npy labels.npy --method temperature --model cal.json",
    )
)
def calibrate(
    logits: Annotated[Path, typer.Argument(help="Scores of any model, N x K: a .npy file.")],
    labels: Annotated[Path, typer.Argument(help="The true classes, N: a .npy file.")],
    model: Annotated[Path, typer.Option(metavar="FILE", help="The .json file to write.")],
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            callback=_one_of("auto", "identity", "temperature", "isotonic", "vector", "matrix"),
            help="auto, identity, temperature, isotonic, vector or matrix.",
        ),
    ] = "auto",
    are_probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="The scores are probabilities, and not logits."),
    ] = False,
    classes: Annotated[
        str,
        typer.Option(
            metavar="LABELS",
            help="Which label each column stands for, parted by commas; or the names of 0, 1, ...",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Calibrate the scores of any model."""
    from softly import calibrating, outputs, terminal
    from softly.errors import TableError

    if model.suffix != ".json":
        raise TableError(f"the calibration file '{model}' needs a name that ends in .json")
    outputs.check_writable(model)
    scores, y = calibrating.read_array(logits), calibrating.read_array(labels)
    with _warnings_noted(), _status("Calibrating"):
        done = calibrating.calibrate(
            *(scores, y),
            method=method,
            are_probabilities=are_probabilities,
            classes=_names(classes),
        )
    calibrating.save(done, model)
    if as_json:
        _print_json(done.to_dict() | {"model": str(model)})
    else:
        terminal.draw_calibrating(_out(), done)
    _note(f"Wrote {model}")


@app.command(
    epilog=_examples(
        "softly apply cal.json logits.npy --output probabilities.npy",
    )
)
def apply(
    model: Annotated[Path, typer.Argument(help="A .json file that `softly calibrate` wrote.")],
    logits: Annotated[Path, typer.Argument(help="Scores of the same model, N x K: a .npy file.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The .npy file to write.")],
) -> None:
    """Make calibrated probabilities of new scores."""
    import numpy as np

    from softly import calibrating, outputs
    from softly.errors import TableError

    if output.suffix != ".npy":
        raise TableError(f"the output file '{output}' needs a name that ends in .npy")
    if output.exists() and logits.exists() and os.path.samefile(logits, output):
        raise TableError(f"'{output}' holds the scores: write the probabilities somewhere else")
    outputs.check_writable(output)
    p = calibrating.probabilities(calibrating.load(model), calibrating.read_array(logits))
    with outputs.replacing(output) as file, file.open("wb") as opened:
        np.save(opened, p)
    _note(f"Wrote {output}: {p.shape[0]:,} rows of {p.shape[1]} classes")


@app.command(
    "report",
    epilog=_examples(
        "softly report m.skops labelled.csv --output report.html",
        "softly report --logits l.npy --labels y.npy --output report.html",
        "softly report m.skops labelled.csv --output report.html --lang ko",
    ),
)
def write_report(
    model: Annotated[
        Path | None, typer.Argument(help="A model that `softly train` wrote.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(help="A table with the target; - is standard input.", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="The .html file to write.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    logits: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead: scores of any model, N x K: a .npy file."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The true classes, N: a .npy file.")
    ] = None,
    are_probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="The scores are probabilities, and not logits."),
    ] = False,
    classes: Annotated[
        str,
        typer.Option(
            metavar="LABELS",
            help="Which label each column stands for, parted by commas; or the names of 0, 1, ...",
        ),
    ] = "",
    lang: Annotated[
        str,
        typer.Option(metavar="CODE", callback=_language, help="The page's language: en or ko."),
    ] = "en",
    as_json: Json = False,
) -> None:
    """Write a page on how good a model is, and what to do about it."""
    from softly import outputs
    from softly.errors import TableError
    from softly.report import Report

    _check_either(model, data, logits, labels, bool(classes or are_probabilities))
    if output.suffix.lower() not in (".html", ".htm"):
        raise TableError(f"the report '{output}' needs a name that ends in .html")
    outputs.check_writable(output)
    for read in (model, data, logits, labels):
        if read is not None and _is_same(output, read):
            raise TableError(f"'{output}' is what the report is about: write it somewhere else")
    subject = (
        _subject_of_model(model, data)
        if model is not None and data is not None
        else _subject_of_arrays(logits, labels, classes, are_probabilities)
    )
    with _warnings_noted(), _status("Measuring"):
        made = Report.of(subject)
    with _status("Drawing"):
        html = made.to_html(lang)
    with outputs.replacing(output) as file:
        file.write_text(html, encoding="utf-8")
    if as_json:
        _print_json(made.to_dict() | {"output": str(output)})
    _note(f"Wrote {output}")


def _check_either(model: Any, data: Any, logits: Any, labels: Any, of_logits: bool) -> None:
    """A model and its table, or scores and their labels: the one or the other, and whole."""
    if model is None and logits is None:
        raise typer.BadParameter("give a model and a table, or --logits FILE and --labels FILE")
    if model is not None and logits is not None:
        raise typer.BadParameter(
            "a model and --logits are given, but a report is about one of them: leave one out"
        )
    if model is not None and data is None:
        raise typer.BadParameter("a model is given, but no table: name one with the target")
    if logits is not None and labels is None:
        raise typer.BadParameter("--logits is given, but not the true classes: --labels FILE")
    if model is not None and (labels is not None or of_logits):
        raise typer.BadParameter(
            "--labels, --classes and --probabilities go with --logits: a model's table has its own"
        )


def _is_same(one: Path, other: str | Path) -> bool:
    return one.exists() and Path(other).exists() and os.path.samefile(one, other)


def _subject_of_model(path: Path, data: str) -> Subject:
    from softly import files, subjects

    model = _load(path)
    source = [path.name, "standard input" if data == "-" else Path(data).name]
    batches = _with_notes(model, files.batches(data, model.schema.numbers), [])
    return subjects.of_model(model, batches, source)


def _subject_of_arrays(
    logits: Path | None, labels: Path | None, classes: str, are_probabilities: bool
) -> Subject:
    from softly import calibrating, subjects
    from softly.calibration import from_probabilities

    assert logits is not None
    assert labels is not None
    scores, y = calibrating.read_array(logits), calibrating.read_array(labels)
    columns = None
    if names := _names(classes):
        y, columns = calibrating.named(y, names)
    try:
        return subjects.of_logits(
            from_probabilities(scores) if are_probabilities else scores,
            y,
            [logits.name, labels.name],
            classes=columns,
        )
    except (ValueError, TypeError) as error:
        raise calibrating.on_the_command_line(error) from error


@app.command(
    # A score may be negative; what looks like an option and is none, is refused as a score.
    context_settings={"ignore_unknown_options": True},
    epilog=_examples(
        "softly explain 2.0 1.0 0.1",
        "softly explain 2.0 1.0 0.1 --classes cat,dog,bird --true cat",
        "softly explain -1 2 --temperature 0.5 --output page.html",
    ),
)
def explain(
    scores: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCORES", help="One for each class, parted by spaces."),
    ] = None,
    classes: Annotated[
        str, typer.Option(metavar="NAMES", help="The names of the classes, parted by commas.")
    ] = "",
    temperature: Annotated[
        str, typer.Option(metavar="T", help="What scores are divided by, above 0.")
    ] = "1",
    true: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The class that came: adds the cross-entropy."),
    ] = None,
    lang: Annotated[
        str,
        typer.Option(metavar="CODE", callback=_language, help="The answer's language: en or ko."),
    ] = "en",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page to play with, a .html file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how softmax makes probabilities of scores, step by step."""
    from softly import explaining, explanation

    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"the page '{output}' needs a name that ends in .html")
    try:
        found = explanation.explain(
            [_score(text) for text in scores or []],
            classes=_names(classes),
            temperature=_number(temperature, "the temperature", "as in 2.5"),
            true=true,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if output is not None:
        from softly import outputs

        with outputs.replacing(output) as file:
            file.write_text(explaining.page(found, lang), encoding="utf-8")
    if as_json:
        _print_json(found.to_dict())
    elif output is None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # where a terminal lacks a script
        explaining.draw(_out(), found, lang)
    if output is not None:
        _note(f"Wrote {output}")


def _score(text: str) -> float:
    if re.match("-+[a-z]", text, re.I) and not text.lower().startswith(("-inf", "-nan")):
        raise typer.BadParameter(f"there is no option {text}")
    return _number(text, "the score", "as in 2.5, parted from others by a space")


def _number(text: str, what: str, how: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{what} '{text}' is not a number: write it {how}") from None


@app.command(epilog=_examples("softly info", "softly info --json"))
def info(as_json: Json = False) -> None:
    """Say which kernels, threads and libraries are in use."""
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
    print(f"softly {facts['versions']['softly']}")
    print(f"kernels: {chosen.name}" + (" (NumPy: the slow ones)" if slow else ""))
    print(f"threads: {facts['threads']}")
    for name, version in facts["versions"].items():
        if name != "softly":
            print(f"{name} {version}")


def main() -> None:
    """Run the command; whatever goes wrong is one sentence and an exit status."""
    try:
        _run(sys.argv[1:])
        sys.stdout.flush()  # or a full disk would be found out after all of this
    except KeyboardInterrupt:
        _fail("interrupted; no file was changed")
    except BrokenPipeError:
        # Whoever read from us has gone, as `head` does: say nothing.
        _drop_output()
        raise SystemExit(FAILED) from None
    except MemoryError:
        _fail("there is not enough memory for this table")
    except OSError as error:
        _drop_output()
        _fail(f"{error.filename or 'the output'} cannot be used: {error.strerror or error}")
    except SystemExit:
        raise
    except BaseException as error:  # a panic of polars is no Exception
        from softly.errors import TableError

        if isinstance(error, TableError):
            _fail(str(error), WRONG_INPUT)
        if os.environ.get("SOFTLY_TRACEBACK"):
            raise
        _fail(
            f"something unexpected went wrong ({type(error).__name__}: {error}); "
            "SOFTLY_TRACEBACK=1 shows where, for a report of it"
        )


def _run(arguments: list[str]) -> None:
    """Parse and call. Typer's own main would draw errors in boxes, and swallow an interrupt."""
    context = None
    try:
        command = typer.main.get_command(app)
        with command.make_context("softly", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as end:  # --help and --version
        sys.stdout.flush()
        raise SystemExit(end.exit_code) from None
    except _USAGE_ERROR as error:
        if not arguments:
            error.show()  # no arguments at all: the help
            raise SystemExit(WRONG_INPUT) from None
        of = error.ctx.command_path if error.ctx else "softly"
        sentence = error.format_message().strip().rstrip(".").removeprefix("Invalid value: ")
        _fail(f"{sentence} (see {of} --help)", WRONG_INPUT)


# Typer keeps the class that its errors share, and that Click calls UsageError, to itself.
_USAGE_ERROR: Any = typer.BadParameter.__base__


def _drop_output() -> None:
    """Give Python's own flush at exit, which would complain again, a sink."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str, status: int = FAILED) -> None:
    print(f"softly: {sentence}", file=sys.stderr)
    raise SystemExit(status)


def _note(sentence: str) -> None:
    """A line on standard error; square brackets in it are no markup."""
    notes.print(sentence, markup=False, soft_wrap=True)


def _names(classes: str) -> list[str] | None:
    return [name.strip() for name in classes.split(",")] if classes else None


def _out() -> Console:
    console = Console(highlight=False)
    if not console.width:  # COLUMNS=0, as some shells have where there is no terminal
        console.width = _USUAL_WIDTH
    return console


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False, indent=2))


def _read(path: str) -> pl.DataFrame:
    from softly import files

    name = "standard input" if path == "-" else path
    with _status(f"Reading {name}"):
        frame = files.read(path)
    _note(f"Read {frame.height:,} rows and {frame.width} columns from {name}")
    return frame


def _load(path: Path) -> Model:
    from softly import models

    model = models.load(path)
    made = {k: v for k, v in model.versions.items() if k != "python"}
    changed = [f"{k} {v}" for k, v in made.items() if models.made_with().get(k) != v]
    if changed:
        _note(f"Note: {path} was made with {', '.join(changed)}; answers may differ slightly")
    return model


def _with_notes(
    model: Model, frames: Iterator[pl.DataFrame], kept: list[str]
) -> Iterator[pl.DataFrame]:
    """The frames, with one note on columns the model has no use for."""
    for number, frame in enumerate(frames):
        yield frame
        extra = [name for name in model.schema.extra(frame) if name not in kept]
        if number == 0 and extra:  # after the yield: an error with these columns comes alone
            more = f" and {len(extra) - 5} more" if len(extra) > 5 else ""
            _note(
                f"Note: columns the model does not know are ignored: {', '.join(extra[:5])}{more}"
            )


def _name_and_type(text: str) -> tuple[str, str]:
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--column {text} is not of the form NAME=TYPE")
    return name, kind


@contextmanager
def _warnings_noted() -> Iterator[None]:
    """What Python would say of a warning, with the line of code, said as a sentence of ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        said = str(warning.message)
        _note(f"{said[:1].upper()}{said[1:].rstrip('.')}.")


def _status(doing: str) -> Any:
    """A line that moves while something is done, where standard error is a terminal."""
    from rich.markup import escape

    return notes.status(escape(doing)) if notes.is_terminal else nullcontext()


@contextmanager
def _progress() -> Iterator[Callable[[Pass | SearchStep], None]]:
    """Say on standard error how far the training is; an interrupt says how far it came."""
    from rich.progress import BarColumn, Progress, TextColumn

    from softly.solvers.result import Pass

    said = "no pass done"
    due = time.monotonic() + _SECONDS
    bar = Progress(
        *(TextColumn("{task.description}"), BarColumn(bar_width=20)),
        console=notes,
        transient=True,
    )

    def on_step(done: Pass | SearchStep) -> None:
        nonlocal said, due
        if isinstance(done, Pass):
            said, share = f"pass {done.number:.5g}, loss {done.objective:.5f}", 1.0
        else:
            said, share = str(done), done.share
        bar.update(task, description=f"Training: {said}", completed=share)
        if not notes.is_terminal and time.monotonic() > due:
            due = time.monotonic() + _SECONDS
            _note(f"Training: {said}")

    task = bar.add_task("Training", total=1.0)
    try:
        with bar if notes.is_terminal else nullcontext():
            yield on_step
    except KeyboardInterrupt:
        _fail(f"interrupted at {said}; no model was written")
    _note(f"Trained: {said}")


if __name__ == "__main__":
    main()
