"""The pages in a real browser: stepped through at both widths and in both colour schemes, and read off the screen.

Needs chromium, and npm for axe-core, which is fetched once per run.
"""

import html
import json
import re
import shutil
import subprocess
import tarfile

import jax
import numpy as np
import pytest

import tinynet as tn
from scripts.example_pages import images, sequences
from tinynet.cli import main
from tinynet.pages import examples
from tinynet.pages.equations import equations_page
from tinynet.pages.trace import trace_page
from tinynet.verification.html import report_page

BROWSER = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
NPM = shutil.which("npm")
pytestmark = pytest.mark.skipif(not (BROWSER and NPM), reason="needs chromium or chrome, and npm")

WIDTHS = ("400", "1600")
PAPER = {"dark": (0, "rgb(20, 23, 27)"), "light": (1, "rgb(255, 255, 255)")}
DRIVER = __file__.replace("test_pages.py", "pages.js")


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(
        [NPM, "pack", "--silent", "axe-core@4.14.1"], cwd=folder, check=True, capture_output=True, timeout=300
    )
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        return tar.extractfile("package/axe.min.js").read().decode()


def read(page, axe, scheme, folder):
    """Return what the driver read at each width; that the page allows no script would keep axe out."""
    page = re.sub('<meta http-equiv="Content-Security-Policy".*?>', "", page)
    frames = "".join(f'<iframe width="{w}" height="1000" srcdoc="{html.escape(page)}"></iframe>' for w in WIDTHS)
    with open(DRIVER, encoding="utf-8") as file:
        driver = file.read()
    stored = axe.replace("</script", "<\\/script")
    (folder / "driver.html").write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}<script type="text/plain" id="axe">{stored}</script>'
        f"<script>{driver}</script>",
        encoding="utf-8",
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=600000 --window-size=1700,1100"
    command = [BROWSER, *flags.split(), f"--blink-settings=preferredColorScheme={PAPER[scheme][0]}"]
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "driver.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True).stdout
    found = json.loads(html.unescape(re.search(r'<pre id="read">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert {width: result.get("error") for width, result in found.items()} == dict.fromkeys(WIDTHS)
    return found


def trained(example, lr, steps):
    """Return the trace of each training step, and by name its exact gradients and the parameters after it."""
    net, loss, params, x, y = example
    result = []
    for _ in range(steps):
        trace = tn.trace(net, loss, params, x, y)
        with jax.enable_x64(True):
            exact = jax.tree.map(np.asarray, jax.grad(lambda p: loss.forward(net.forward(p, x)[0], y)[0])(params))
        params = tn.map_leaves(lambda p, g: p - lr * g, params, exact)
        gradients = {f"d{key}{level}": exact[i][key] for i, level in ((0, 1), (2, 2)) for key in "Wb"}
        after = {f"{key}{level}+": params[i][key] for i, level in ((0, 1), (2, 2)) for key in "Wb"}
        result.append((trace, gradients, after))
    return result


def number(text):
    """Return the number that a text ends with, as shown."""
    return float(re.findall(r"−?\d[\d.]*(?:e[−+]?\d+)?", text)[-1].replace("−", "-"))


@pytest.mark.parametrize("scheme", PAPER)
@pytest.mark.parametrize("name", sorted(examples.EXAMPLES))
def test_the_numbers_on_the_screen_are_those_of_trace_and_jax(name, scheme, axe, tmp_path):
    lr, frames = 0.5, 2
    example = examples.EXAMPLES[name]()
    tn.trace(*example).to_html(tmp_path / "page.html", lr=lr, steps=frames)
    found = read((tmp_path / "page.html").read_text(encoding="utf-8"), axe, scheme, tmp_path)
    expected = trained(example, lr, frames)
    for result in found.values():
        assert result["violations"] == []
        assert result["overflow"] <= 0
        assert result["paper"] == PAPER[scheme][1]
        names = [*expected[0][0].names, "W1+", "b1+", "W2+", "b2+"]
        assert len(result["steps"]) == frames * len(names)
        for k, step in enumerate(result["steps"]):
            trace, exact, after = expected[k // len(names)]
            current = names[k % len(names)]
            check_step(step, current, trace, exact, after, example[4])
        row, shown = result["other"]["value"], result["other"]["read"]["cells"]
        outer = [cell for cell in shown if cell[0] in ("δ2", "a1")]
        assert len(outer) == expected[0][0]["δ2"].shape[1] + expected[0][0]["a1"].shape[1]
        for shown_name, i, _, value, _ in outer:
            assert value == pytest.approx(expected[0][0][shown_name][row, i], rel=1e-13)


def check_step(step, current, trace, exact, after, y):
    """Compare everything that one step shows; of the samples it shows the first."""

    def entry(name, array, i=0, j=0):
        if np.ndim(array) < 2:
            return np.ravel(array)[i]
        return array[i, j] if name.removeprefix("d").removesuffix("+") in trace.parameters else array[0, i]

    def value(name, i=0, j=0):
        array = y if name == "y" else after[name] if name in after else trace[name]
        return float(entry(name, array, i, j))

    assert any(name == current for name, *_ in step["cells"])
    for name, i, j, shown, text in step["cells"]:
        assert shown == pytest.approx(value(name, i, j), rel=1e-13)
        assert number(text) == pytest.approx(shown, rel=6e-3)
    for _, shown, text in step["drawn"]:
        assert number(text) == pytest.approx(shown, rel=6e-2)
    drawn = {name for name, *_ in step["drawn"]}
    assert "a0" in drawn
    assert ("E" in drawn) == (step["phase"] != "forward" or current == "E")
    assert number(step["answer"]) == pytest.approx(value(current), rel=1e-5)
    if step["phase"] == "backward":
        assert step["oracle"]["by hand"] == pytest.approx(value(current), rel=1e-13)
        assert step["oracle"]["difference"] <= 32
    if current in exact:
        assert step["oracle"]["jax.grad"] == pytest.approx(entry(current, exact[current]), rel=1e-13)
    plain = current.removesuffix("+")
    factors = {plain, f"d{plain}"} if current in after else {q.name: q.factors for q in trace}[current]
    lit = {name for name, *_ in step["lit"]}
    assert lit <= set(factors)
    assert lit or current == "a0" or (current == "E" and len(y) > 1)


def test_every_way_of_moving_arrives(axe, tmp_path):
    trace = tn.trace(*examples.mazur())
    trace.to_html(tmp_path / "page.html", steps=3)
    page, names = (tmp_path / "page.html").read_text(encoding="utf-8"), trace.names
    for result in read(page, axe, "light", tmp_path).values():
        places = {key: place.lstrip("#") for key, place in result["places"].items()}
        offset = 1 if "#" in result["places"]["home"] else 0  # an address counts from 1, the sliders from 0
        last = len(names) + 4 - 1 + offset
        assert places == {
            "home": f"{offset}.{offset}",
            "backward": f"{offset}.{names.index('∂E/∂a2') + offset}",
            "update": f"{offset}.{len(names) + offset}",
            "next": f"{1 + offset}.{offset}",
            "end": f"{2 + offset}.{last}",
            "up": f"{1 + offset}.{last}",
        }


def test_an_entry_under_the_pointer_or_the_focus_lights_its_factors(axe, tmp_path):
    trace = tn.trace(*examples.mazur())
    trace.to_html(tmp_path / "page.html")
    for result in read((tmp_path / "page.html").read_text(encoding="utf-8"), axe, "light", tmp_path).values():
        hovered = result["hovered"]
        assert hovered["before"]["lit"] == [["δ2", 0, 0], ["a1", 0, 0]]
        assert hovered["after"]["lit"] == [["δ2", 1, 0], ["a1", 1, 0]]
        assert hovered["after"]["oracle"]["by hand"] == trace["dW2"][1, 1]
        assert hovered["keyboard"]["lit"] == [["δ2", 1, 0], ["a1", 0, 0]]
        assert hovered["focus"] == ["1", "0"]
        assert hovered["edge"]["oracle"]["by hand"] == trace["dW2"][0, 1]
        assert hovered["edge"]["nodes"] == 2


@pytest.mark.parametrize("scheme", PAPER)
@pytest.mark.parametrize("trace", [images, sequences], ids=lambda trace: trace.__name__)
def test_folded_layers_and_heat_maps_fit_the_screen(trace, scheme, axe, tmp_path):
    trace = trace()
    for result in read(trace_page(trace, 0.1, 1), axe, scheme, tmp_path).values():
        assert result["violations"] == []
        assert result["overflow"] <= 0
        assert len(result["steps"]) == len(trace.names) + len(trace.parameters)


@pytest.mark.parametrize("scheme", PAPER)
def test_the_derivation_reads_in_both_languages(scheme, axe, tmp_path):
    for result in read(equations_page(), axe, scheme, tmp_path).values():
        assert result["violations"] == []
        assert result["overflow"] <= 0
        assert result["paper"] == PAPER[scheme][1]
        assert result["shown"] == {"en": ["en"], "zh": ["zh"]}
        assert len(result["checks"]) == 26
        for value, exact in result["checks"]:
            assert value == pytest.approx(exact, rel=1e-13)
        assert result["math"] >= 2 * 26


class Doubled(tn.Linear):
    """A Linear whose dW is twice too large, and whose bias is not summed."""

    def param_grads(self, params, a, dz):
        return {"W": 2 * dz.T @ a, "b": dz}


def one_report():
    return report_page([tn.verify(Doubled(4, 3))])


def all_reports():
    wrong = (lambda x: x * x, lambda args, dy: (-dy * args[0],))
    targets = [(tn.Linear(4, 3), None), (Doubled(70, 40), None), (tn.Softmax(), None), (wrong, ((2, 3),))]
    return report_page([tn.verify(target, inputs=inputs) for target, inputs in targets])


def classes(folder):
    """Return the page of a training on a table of classes."""
    x = np.random.default_rng(0).normal(size=(120, 9))
    rows = [",".join([*map("{:.3f}".format, row), "low mid high".split()[int(row[0] > 0) + (row[0] > 1)]]) for row in x]
    (folder / "table.csv").write_text("\n".join([",".join([*"abcdefghi", "kind"]), *rows]))
    return trained_page(folder, "table.csv")


def images_of_numbers(folder):
    """Return the page of a training on images, whose target is a quantity."""
    x = np.random.default_rng(0).random((60, 16))
    np.savez(folder / "images.npz", x=x, y=x.sum(axis=1))
    return trained_page(folder, "images.npz")


def trained_page(folder, table):
    assert main(["train", str(folder / table), "--epochs", "5", "--html", str(folder / "training.html")]) == 0
    return (folder / "training.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", PAPER)
@pytest.mark.parametrize("make", [one_report, all_reports, classes, images_of_numbers], ids=lambda make: make.__name__)
def test_a_report_and_a_training_can_be_read_by_everyone(make, scheme, axe, tmp_path):
    page = make(*[tmp_path] * bool(make.__code__.co_argcount))
    for result in read(page, axe, scheme, tmp_path).values():
        assert result["violations"] == []
        assert result["overflow"] <= 0
        assert result["paper"] == PAPER[scheme][1]
        assert result["contrast"] >= 4.5
