"""Takes explain.png: the page of `softly explain` for three scores, as Chromium shows it.

`python docs/figures/explain.py [FILE]` writes it; `chromium` has to be there.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from softly import explaining
from softly.explanation import explain

WIDTH, HEIGHT = 1000, 668  # down to what the probabilities come to
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--force-device-scale-factor=1.5"
)


def take(picture: Path) -> None:
    found = explain([2.0, 1.0, 0.1], classes=["cat", "dog", "bird"], true="cat")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(explaining.page(found), encoding="utf-8")
        options = [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        command = ["chromium", *FLAGS.split(), *options, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    take(Path(sys.argv[1] if sys.argv[1:] else Path(__file__).with_suffix(".png")).resolve())
