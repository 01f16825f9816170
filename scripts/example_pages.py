"""Write the example pages into a folder: `python scripts/example_pages.py FOLDER`."""

import argparse
from pathlib import Path

import numpy as np

import tinynet as tn
from tinynet.files.atomic import write_atomically
from tinynet.inspection import Trace
from tinynet.pages.equations import equations_page
from tinynet.pages.examples import mazur, xor
from tinynet.pages.trace import trace_page


def images() -> Trace:
    """Trace a convolutional network on six images, with a wide layer behind."""
    rng = np.random.default_rng(0)
    front = tn.Conv2d(1, 3, 3), tn.ReLU(), tn.MaxPool2d(2), tn.Flatten()
    net = tn.Sequential(*front, tn.Linear(27, 12), tn.Tanh(), tn.Linear(12, 10))
    x, y = rng.normal(size=(6, 1, 8, 8)), np.eye(10)[:6]
    return tn.trace(net, tn.SoftmaxCrossEntropy("mean"), net.init(rng, np.float64), x, y)


def sequences() -> Trace:
    """Trace an attention layer on three sequences of five."""
    rng = np.random.default_rng(0)
    net = tn.Sequential(tn.Linear(6, 8), tn.MultiHeadAttention(8, 2), tn.RMSNorm(8), tn.Flatten(), tn.Linear(40, 3))
    x, y = rng.normal(size=(3, 5, 6)), np.eye(3)
    return tn.trace(net, tn.SoftmaxCrossEntropy("mean"), net.init(rng, np.float64), x, y)


def example_pages() -> dict[str, str]:
    """Return each page by the name of its file."""
    return {
        "equations.html": equations_page(),
        "mazur.html": trace_page(tn.trace(*mazur()), 0.5, 2),
        "film.html": trace_page(tn.trace(*mazur()), 0.5, 20),
        "xor.html": trace_page(tn.trace(*xor()), 2.0, 2),
        "images.html": trace_page(images(), 0.1, 2),
        "sequences.html": trace_page(sequences(), 0.1, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in example_pages().items():
        write_atomically(folder / name, page.encode())
        print(f"{folder / name}: {len(page.encode()) / 1000:.0f} KB")


if __name__ == "__main__":
    main()
