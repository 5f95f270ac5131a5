"""What the README and the docs say: their examples run as printed, what they name is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in DOCS}
PAGES |= {page.name: page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("*.md"))}
README = PAGES["README.md"]


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_the_readme_leads_with_its_two_commands():
    first, second = blocks("sh")[:2]
    assert first.startswith('python -m pip install ".[cli]" && softly train examples/penguins.csv')
    assert second == 'python -m pip install -e ".[test]" && python -m pytest\n'


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if blocks("python", text)])
def test_python_examples_run(page):
    """Those of a page as one session, from top to bottom, in a process of its own."""
    code = "\n".join(blocks("python", PAGES[page]))
    for library in set(re.findall(r"^import (\w+)$", code, re.M)):
        pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-"], input=code, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_shell_examples_run(folder):
    """Every line but the two installs, in order, in a shell."""
    installs, *others = blocks("sh")
    train = installs.split("&&")[1].strip()
    lines = [train, *"".join(others).splitlines()]
    ran = [line for line in lines if "pip install" not in line]
    assert len(ran) >= 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in ran:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder,
            env={**os.environ, "PATH": path},
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if line == train:
            shown = done.stdout
        if line.startswith("softly explain"):
            explained = done.stdout
    for out, printed in zip((shown, explained), blocks("text"), strict=True):
        assert [x.rstrip() for x in out.strip().splitlines()] == printed.strip().splitlines()
    answers = (folder / "answers.csv").read_text().splitlines()
    assert answers[0] == "ring,prediction,probability,p_Adelie,p_Chinstrap,p_Gentoo"
    assert len(answers) == 5


def without_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text):
    """What links to a page's headings end in."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    prose = re.sub(r"`[^`\n]*`", "", without_blocks(PAGES[page]))
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_are_named_exist(page):
    for file, name in re.findall(r"\b(test_\w+\.py)::(test_\w+)", PAGES[page]):
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text, f"{page} names {file}::{name}"


def test_the_figure_is_what_its_script_draws(tmp_path):
    """The same bytes each time; of the one in docs/, which another version drew, the texts."""
    pytest.importorskip("matplotlib")
    script = ROOT / "docs" / "figures" / "temperature.py"
    drawn = []
    for name in ("first.svg", "second.svg"):
        subprocess.run([sys.executable, script, tmp_path / name], check=True)
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawn[0] == drawn[1]
    kept = script.with_suffix(".svg").read_text(encoding="utf-8")
    texts = r"<text [^>]*>([^<]*)</text>"
    assert re.findall(texts, kept) == re.findall(texts, drawn[0]) != []
