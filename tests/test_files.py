"""Table files: what comes in goes out, and what cannot come in is named."""

from __future__ import annotations

import csv
import io
import os
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from softly import csv_files, files, outputs
from softly.errors import TableError

FRAME = pl.DataFrame(
    {
        "name": ["Anna, B.", 'the "quick"', "two\nlines", "semi;colon\ttab|bar", "김철수", None],
        "size": [1.5, -2.25, 1e-300, 3.0, None, 6.0],
        "count": [1, 2, 3, 4, 5, 6],
        "open": [True, False, None, True, True, False],
    }
)
ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".xlsx", ".arrow", ".feather", ".ipc")


def save(frame: pl.DataFrame, path: Path) -> None:
    """Save with polars alone, so that reading is tested apart from writing."""
    if path.suffix in (".csv", ".tsv"):
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        frame.write_parquet(path, row_group_size=2)
    elif path.suffix in (".jsonl", ".ndjson"):
        frame.write_ndjson(path)
    elif path.suffix == ".xlsx":
        frame.write_excel(path)
    else:
        frame.write_ipc(path)


def put(folder: Path, content: bytes | str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def whole(path: Path | str, rows: int = 2) -> pl.DataFrame:
    return pl.concat(files.batches(path, rows=rows))


# --- reading ------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    save(FRAME, path)
    assert_frame_equal(files.read(path), FRAME)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_stream_equals_whole(tmp_path: Path, ending: str, rows: int) -> None:
    path = tmp_path / f"table{ending}"
    save(FRAME, path)
    frames = list(files.batches(path, rows=rows))
    assert all(frame.height <= rows for frame in frames)
    expected = FRAME if ending not in (".csv", ".tsv") else FRAME.cast(pl.String)
    assert_frame_equal(pl.concat(frames), expected)


@pytest.mark.parametrize("ending", ENDINGS)
def test_content_tells_the_format(tmp_path: Path, ending: str) -> None:
    save(FRAME, tmp_path / f"table{ending}")
    path = (tmp_path / f"table{ending}").rename(tmp_path / "table")
    assert_frame_equal(files.read(path), FRAME)


@pytest.mark.parametrize("ending", ENDINGS)
def test_standard_input(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save(FRAME, tmp_path / f"table{ending}")
    content = (tmp_path / f"table{ending}").read_bytes()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def pipe() -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    pipe()
    assert_frame_equal(files.read("-"), FRAME)
    pipe()
    assert sum(frame.height for frame in files.batches("-", rows=2)) == FRAME.height
    pipe()
    stream = files.batches("-", rows=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list(temporary.iterdir()) == []


def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["sh", "-c", f"printf 'a,b\\n1,2\\n' > {pipe}"])
    assert files.read(pipe).rows() == [(1, 2)]
    assert writer.wait() == 0


def test_csv_types_come_from_all_rows(tmp_path: Path) -> None:
    lines = ["a,b,c,d", *["1,1,true,NA"] * 20_000, "2.5,x,false,7"]
    frame = files.read(put(tmp_path, "\n".join(lines)))
    assert frame.dtypes[:3] == [pl.Float64, pl.String, pl.Boolean]
    assert frame.height == 20_001
    assert frame.row(-1)[:3] == (2.5, "x", False)


@pytest.mark.parametrize("missing", csv_files.MISSING)
def test_csv_null_tokens(tmp_path: Path, missing: str) -> None:
    path = put(tmp_path, f"a,b\n{missing},x\n1,{missing}\n2,y\n")
    expected = pl.DataFrame({"a": [None, 1, 2], "b": ["x", None, "y"]})
    assert_frame_equal(files.read(path), expected)
    assert_frame_equal(whole(path), expected.cast(pl.String))


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\r\n1,2\r\n3,4\r\n", [(1, 2), (3, 4)]),
        ("a,b\r1,2\r3,4\r", [(1, 2), (3, 4)]),
        ("a,b\n1,2\n3,4", [(1, 2), (3, 4)]),
        ("\n\na,b\n\n1,2\n\n\n3,4\n\n", [(1, 2), (3, 4)]),
        ("a,b\r\n\r\n1,2\r\n  \r\n3,4\r\n", [("1", 2), ("3", 4)]),
        ("a;b\n1;2\n3;4\n", [(1, 2), (3, 4)]),
        ("a|b\n1|2\n3|4\n", [(1, 2), (3, 4)]),
        ("a\tb\n1\t2\n3\t4\n", [(1, 2), (3, 4)]),
        ("a;b\n1,5;2,5\n3,5;4,5\n", [("1,5", "2,5"), ("3,5", "4,5")]),
        ('a,b\n"x, y; z",1\n"; ; ;",2\n', [("x, y; z", 1), ("; ; ;", 2)]),
        ('a,b\n"line 1\r\nline ""2""",1\nx,2\n', [('line 1\r\nline "2"', 1), ("x", 2)]),
        ('"a","b"\n"1","2"\n', [(1, 2)]),
        (
            'a,b\n5" disk,1\n3" nail,2\n6" pipe,3\n',
            [('5" disk', 1), ('3" nail', 2), ('6" pipe', 3)],
        ),
        ('a,b\n5" disk,1\nnail,2\n', [('5" disk', 1), ("nail", 2)]),
        ("a\n1\n\n3\n", [(1,), (None,), (3,)]),
        ("a,b\n,\n1,2\n", [(None, None), (1, 2)]),
        ("a,b\n1,\n2,\n", [(1, None), (2, None)]),
        ("a\nhello\nworld\n", [("hello",), ("world",)]),
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, content: str, rows: list[tuple[object]]) -> None:
    path = put(tmp_path, content)
    assert files.read(path).rows() == rows
    as_text = [tuple(None if v is None else str(v) for v in row) for row in rows]
    assert whole(path, rows=1).rows() == as_text
    assert whole(path, rows=100).rows() == as_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949", "cp932", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    letters = {
        "cp949": ("이름", "김철수는 서울에 삽니다"),
        "cp932": ("名前", "東京都に住んでいる人々です"),
        "cp1252": ("prénom", "Hélène café à la crème, naïve déjà vu"),
    }
    name, value = letters.get(encoding, ("ключ", "значение 🙂" if "utf" in encoding else ""))
    content = f'{name},x\r\n"{value}",1\r\n"{value} {value}",2\r\n'.encode(encoding)
    frame = files.read(put(tmp_path, content))
    assert frame.columns == [name, "x"]
    assert frame[name].to_list() == [value, f"{value} {value}"]
    assert whole(put(tmp_path, content))[name].to_list() == frame[name].to_list()


def test_an_accent_far_down_is_found(tmp_path: Path) -> None:
    content = b"a,b\n" + b"plain,1\n" * 300_000 + "Crème brûlée à la française,2\n".encode("cp1252")
    assert files.read(put(tmp_path, content))["a"][-1] == "Crème brûlée à la française"


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a,,c\n1,2,3\n", ["a", "column_2", "c"]),
        (",,c\n1,2,3\n", ["column_1", "column_2", "c"]),
        (" a , b\n1,2\n", ["a", "b"]),
        ('"a ""x""",b\n1,2\n', ['a "x"', "b"]),
        ('"a\nb",c\n1,2\n', ["a\nb", "c"]),
        ("1,2\n1,2\n", ["1", "2"]),
        (",\n1,2\n", ["column_1", "column_2"]),
        ('5" disk,b\n1,2\n', ['5" disk', "b"]),
    ],
)
def test_header_names(tmp_path: Path, content: str, columns: list[str]) -> None:
    path = put(tmp_path, content)
    assert files.read(path).columns == columns
    assert whole(path).columns == columns


def test_excel_header_without_names(tmp_path: Path) -> None:
    import xlsxwriter

    path = tmp_path / "table.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["a", "", "c"])
        sheet.write_row(1, 0, [1, 2, 3])
    assert files.read(path).columns == ["a", "column_2", "c"]


def test_parquet_keeps_odd_names_and_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"": [1, 2], "0": [date(2024, 1, 2), None], "a,b": [datetime(2024, 1, 2, 3), None]},
        schema_overrides={"": pl.Int8},
    )
    save(frame, tmp_path / "t[1]*.parquet")
    assert_frame_equal(files.read(tmp_path / "t[1]*.parquet"), frame)
    assert_frame_equal(whole(tmp_path / "t[1]*.parquet"), frame)


def test_json_lines_may_lack_keys(tmp_path: Path) -> None:
    path = put(tmp_path, '{"a":1}\n\n{"b":"x"}\n{"a":2.5,"b":"y"}\n', "t.jsonl")
    assert files.read(path).rows() == [(1.0, None), (None, "x"), (2.5, "y")]
    assert whole(path).rows() == files.read(path).rows()


def test_numbers_are_parsed_by_the_reader(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b,c\n1,x,2\nNA,y,1e3\n")
    frame = pl.concat(files.batches(path, numbers=["c", "a", "absent"]))
    assert frame.dtypes == [pl.Float64, pl.String, pl.Float64]
    assert frame.rows() == [(1.0, "x", 2.0), (None, "y", 1000.0)]


@pytest.mark.parametrize("bad", [0, 3, 70_000, 150_000, 299_999])
def test_a_number_that_does_not_parse_comes_as_text_once(tmp_path: Path, bad: int) -> None:
    values = [str(i) for i in range(300_000)]
    values[bad] = "abc"
    path = put(tmp_path, "n,m\n" + "".join(f"{v},1\n" for v in values))
    frames = list(files.batches(path, numbers=["n", "m"], rows=10_000))
    got = [v for f in frames for v in f["n"].cast(pl.String).str.replace(r"\.0$", "")]
    assert got == values
    assert next(f for f in frames if "abc" in f["n"].cast(pl.String))["n"].dtype == pl.String


# --- what cannot be read ------------------------------------------------------


def refusal(path: Path | str) -> str:
    with pytest.raises(TableError) as from_read:
        files.read(path)
    with pytest.raises(TableError) as from_batches:
        list(files.batches(path, rows=1))
    assert str(from_read.value) == str(from_batches.value)
    assert "\n" not in str(from_read.value)
    return str(from_read.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\t\n ", "is empty"),
        (b'""\n', "is empty"),
        (b"a,b\n", "holds a header but no rows"),
        (b"a,b\n\n\n", "holds a header but no rows"),
        (b"a,b,c\n1,2,3\n4,5\n", "line 3 has 2 cells, but the header has 3"),
        (b"a,b,c\n1,2,3\n4\n", "line 3 has 1 cell, but the header has 3"),
        (b"a,b,c\n1,2,3\n\n4,5\n6,7,8\n", "line 4 has 2 cells"),
        (b"a,b,c\n1,2,\n4,5,6\n7,8\n", "line 4 has 2 cells"),
        (b"a,b\n1,2\n3,4,5\n6,7\n", "line 3 has 3 cells, but the header has 2"),
        (b"a,b\n1,2\n3,4,\n", "line 3 has 3 cells, but the header has 2"),
        (b'a,b\n"x\ny",2\n3,4,5\n', "line 4 has 3 cells"),
        (b'a,b\n1,2\n"open,2\n3,4\n', "line 3 has 1 cell, but the header has 2: is a quote opened"),
        (b"a,b,a\n1,2,3\n", "2 columns named 'a'"),
        (b"a,b\n1,\x00\n", "does not look like a table"),
        (bytes(range(256)) * 50, "does not look like a table"),
    ],
)
def test_refused_csv(tmp_path: Path, content: bytes, message: str) -> None:
    refused = refusal(put(tmp_path, content))
    assert message in refused
    assert "table.csv" in refused


def test_short_row_far_down(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b\n" + "1,2\n" * 200_000 + "3\n" + "1,2\n" * 10)
    assert "line 200002 has 1 cell" in refusal(path)


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".xlsx"])
@pytest.mark.parametrize("keep", [5, 0.5, 0.95])
def test_truncated(tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"table{ending}"
    save(FRAME, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    assert f"table{ending}' cannot be read" in refusal(path)


def test_corrupt_parquet(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    save(pl.DataFrame({"a": range(1000)}), path)
    content = bytearray(path.read_bytes())
    content[20:400] = bytes(380)
    path.write_bytes(content)
    assert "cannot be read as Parquet" in refusal(path)


@pytest.mark.parametrize("bad", ['{"a": 2,', "[1]", "3", "x", '{"a": 1} {"a": 2} }'])
def test_bad_json_line_is_named(tmp_path: Path, bad: str) -> None:
    path = put(tmp_path, f'{{"a": 1}}\n\n{bad}\n{{"a": 3}}\n', "t.jsonl")
    assert "t.jsonl', line 3" in refusal(path)


@pytest.mark.parametrize("ending", [".parquet", ".xlsx", ".arrow", ".jsonl"])
def test_no_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    save(FRAME.head(0), path)
    expected = "is empty" if ending == ".jsonl" else "holds a header but no rows"
    assert expected in refusal(path)


def test_no_file(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "absent.csv")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv.gz", b"\x1f\x8b\x08\x00", "is compressed: unpack it first"),
        ("table.csv", b"\x1f\x8b\x08\x00", "is compressed: unpack it first"),
        ("birds.skops", b"PK\x03\x04", "is a model: name a table"),
    ],
)
def test_what_is_no_table(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in refusal(put(tmp_path, content, name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b\n1,2\n")
    path.chmod(0)
    assert "permission denied" in refusal(path)


# --- writing ------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"])
def test_written_is_read_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    outputs.write(path, FRAME.iter_slices(2))
    assert_frame_equal(files.read(path), FRAME)
    assert list(tmp_path.iterdir()) == [path]


# One or more letters of anything a CSV file could trip over.
CELLS = st.text(alphabet=st.sampled_from("aZé김🙂 ,;\t|\"'\n\r\\#0-."), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_any_text_survives(tmp_path: Path, ending: str, rows: list[tuple[str, str]]) -> None:
    frame = pl.DataFrame(rows, schema=["first", "second"], orient="row")
    path = tmp_path / f"table{ending}"
    outputs.write(path, frame.iter_slices(3))
    assert whole(path, rows=3).rows() == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=2, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_that_python_wrote(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, ends: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writerows([("first", "second"), *rows])
    path = put(tmp_path, text.getvalue())
    assert whole(path, rows=3).rows() == rows


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_no_frames_but_a_schema(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    outputs.write(path, iter([]), schema={"a": pl.Float64, "b": pl.String})
    with pytest.raises(TableError, match="holds a header but no rows"):
        files.read(path)


def test_unknown_ending_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"must end in one of \.csv, .*\.ndjson"):
        outputs.write(tmp_path / "table.doc", [FRAME])


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("error", [TableError("row 7"), KeyboardInterrupt(), RuntimeError("x")])
@pytest.mark.parametrize("after", [0, 2])
def test_an_error_leaves_the_old_file(
    tmp_path: Path, ending: str, error: BaseException, after: int
) -> None:
    path = put(tmp_path, "old", f"table{ending}")

    def frames() -> Iterator[pl.DataFrame]:
        yield from [FRAME] * after
        raise error

    with pytest.raises(type(error)) as raised:
        outputs.write(path, frames())
    assert raised.value is error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_follows_links_and_keeps_the_mode(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = put(tmp_path / "real", "old", "model")
    target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(target)
    with outputs.replacing(link) as path:
        assert path.parent == target.parent
        path.write_text("new")
        assert target.read_text() == "old"
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with outputs.replacing(tmp_path / "new") as path:
            path.write_text("x")
        put(tmp_path, "x", "plain")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode for name in ("new", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_disk_full(tmp_path: Path, ending: str) -> None:
    full = tmp_path / f"full{ending}"
    full.symlink_to("/dev/full")
    with pytest.raises(TableError, match=r"full\S+ cannot be written: .*No space left"):
        outputs.write(full, [FRAME] * 50)
    assert Path("/dev/full").is_char_device()
    assert list(tmp_path.iterdir()) == [full]


@pytest.mark.parametrize("use", [outputs.check_writable, lambda path: outputs.write(path, [FRAME])])
def test_where_nothing_can_be_written(tmp_path: Path, use: Callable[[Path], None]) -> None:
    with pytest.raises(TableError, match="there is no folder"):
        use(tmp_path / "absent" / "table.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TableError, match="is a folder"):
        use(tmp_path / "folder.csv")
    outputs.check_writable(tmp_path / "new.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_protected(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TableError, match="permission denied"):
        outputs.check_writable(tmp_path / "table.csv")


def test_standard_output_is_a_pipe_to_read_from(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Each frame is written out while the next is still being made."""
    seen = b""

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal seen
        for i in range(3):
            yield pl.DataFrame({"a": [i]})
            deadline = time.monotonic() + 10
            while not seen.endswith(f"{i}\n".encode()) and time.monotonic() < deadline:
                seen += capfdbinary.readouterr().out
                time.sleep(0.001)
            assert seen.endswith(f"{i}\n".encode())

    outputs.write("-", frames())
    assert seen == b"a\n0\n1\n2\n"


def test_broken_pipe_passes_through() -> None:
    code = """
        import sys, polars as pl
        from softly import files, outputs
        try:
            outputs.write("-", (pl.DataFrame({"a": range(10_000)}) for _ in range(1000)))
        except BrokenPipeError:
            sys.stderr.write("broken")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read().startswith(b"broken")
    child.stderr.close()
    child.wait()


# --- memory -------------------------------------------------------------------

PEAK = """
    import re, sys
    import polars as pl
    from softly import files, outputs
    def frames(count):
        for _ in range(count):
            yield pl.DataFrame({f"c{i}": pl.Series(range(65_536)) * 0.1 for i in range(10)})
    path, count, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if way == "write":
        outputs.write(path, frames(count))
    else:
        rows = sum(f.height for f in files.batches(path, [f"c{i}" for i in range(10)]))
        assert rows == count * 65_536
    # not ru_maxrss: that counts what the parent held at the fork, too
    print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, ending: str) -> None:
    def peak(count: int, way: str) -> int:
        path = str(tmp_path / f"{count}{ending}")
        command = [sys.executable, "-c", textwrap.dedent(PEAK), path, str(count), way]
        return int(subprocess.check_output(command))

    small, large = 10, 30  # 1.3 million rows more, 100 MB as floats
    assert peak(large, "write") - peak(small, "write") < 50
    assert peak(large, "read") - peak(small, "read") < 50
