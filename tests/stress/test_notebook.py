"""In a notebook everything that is looked at shows itself: a picture or HTML, not only its text."""

import json

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

START = """
import numpy as np
import tinynet as tn
from tinynet.pages.examples import mazur
net, loss, params, x, y = mazur()
result = tn.fit(net, loss, x, y, params=params, optimizer=tn.SGD(0.5), epochs=3)
"""
SHOWN = {
    "tn.summary(net, x)": "text/html",
    "tn.trace(net, loss, params, x, y)": "text/html",
    "result": "text/html",
    "tn.verify(net, loss=loss)": "text/html",
    "tn.plot.learning_curves(result)": "image/png",
    "tn.plot.network(tn.trace(net, loss, params, x, y))": "image/png",
}


def test_each_shows_itself():
    cells = [nbformat.v4.new_code_cell(code) for code in (START, *SHOWN)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell, kind in zip(notebook.cells[1:], SHOWN.values(), strict=True):
        (output,) = cell.outputs
        assert kind in output.data, f"{cell.source}: {json.dumps(list(output.data))}"
        assert len(output.data[kind]) > 100
