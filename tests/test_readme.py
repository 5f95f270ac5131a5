"""The README's examples run as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_the_readme_leads_with_its_two_commands():
    first, second = blocks("sh")[:2]
    assert first.startswith('python -m pip install ".[cli]" && softly train examples/penguins.csv')
    assert second == 'python -m pip install -e ".[test]" && python -m pytest\n'


def test_python_examples_run():
    """As one session, from top to bottom, in a process of its own."""
    code = "\n".join(blocks("python"))
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
    printed = blocks("text")[0]
    assert [x.rstrip() for x in shown.strip().splitlines()] == printed.strip().splitlines()
    answers = (folder / "answers.csv").read_text().splitlines()
    assert answers[0] == "ring,prediction,probability,p_Adelie,p_Chinstrap,p_Gentoo"
    assert len(answers) == 5
