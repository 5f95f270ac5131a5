"""Takes report.png: the first screen of `softly report` on a small network, as Chromium shows it.

`python docs/figures/report.py [FILE]` writes it; `chromium` has to be there.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import softly

WIDTH, HEIGHT = 1000, 1290  # down to the reliability curves
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--force-device-scale-factor=1.5"
)


def made() -> softly.Report:
    """Of a network that has learnt 300 digits by heart, on the other 1,497."""
    X, digit = load_digits(return_X_y=True)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    network = MLPClassifier(hidden_layer_sizes=200, alpha=0, max_iter=1000, random_state=0)
    network.fit(X[:300], digit[:300])
    logits = softly.from_probabilities(network.predict_proba(X[300:]))
    y = np.array(names)[digit[300:]]
    return softly.Report.of_logits(logits, y, classes=names, source="network.npy")


def take(picture: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(made().to_html(), encoding="utf-8")
        options = [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        command = ["chromium", *FLAGS.split(), *options, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    take(Path(sys.argv[1] if sys.argv[1:] else Path(__file__).with_suffix(".png")).resolve())
