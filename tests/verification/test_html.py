"""The page: what it says, that it needs nothing else, and that it fits a real browser's window."""

import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import tinynet as tn
from tinynet.equations import EQUATIONS
from tinynet.pages.mathml import mathml
from tinynet.verification.html import _pooled, report_page, write_html
from tinynet.verification.tolerance import rule

BROWSER = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)


class BadRow(tn.Linear):
    def param_grads(self, params, a, dz):
        grads = super().param_grads(params, a, dz)
        grads["W"][1] *= 3
        return grads


class Unsummed(tn.Linear):
    def param_grads(self, params, a, dz):
        return super().param_grads(params, a, dz) | {"b": dz.copy()}


class Hostile(tn.Sigmoid):
    def backward(self, params, df, da):
        raise ValueError("<script>alert('&')</script>")


@pytest.fixture(scope="module")
def reports():
    return [
        tn.verify(BadRow(4, 3)),
        tn.verify(BadRow(70, 40), probes=("rectangular",)),
        tn.verify(Unsummed(4, 3)),
        tn.verify(Hostile()),
        tn.verify(tn.Sigmoid(), probes=("rectangular",)),
    ]


@pytest.fixture(scope="module")
def page(reports, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(reports, path)
    return path


class Tags(HTMLParser):
    """Every tag with its attributes, and every text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


def test_it_shows_verdict_findings_probes_and_why_one_was_skipped(page):
    texts = Tags(page.read_text()).texts
    assert "4 FAIL" in texts
    assert "1 PASS" in texts
    assert "params.W, one row" in " ".join(texts)
    assert any("row 1 of params.W is wrong" in text for text in texts)
    assert "skipped: a fault was found before it" in texts
    assert "skipped: not asked for" in texts


def test_of_several_reports_each_is_there_once_and_what_failed_comes_first(reports, page):
    text = page.read_text()
    rows = re.findall(r'<details><summary><span class="verdict (\w+)">.*?<h2>(.*?)</h2>', text)
    assert len(rows) == len(reports) == text.count("</details>")
    assert [verdict for verdict, _ in rows] == ["FAIL"] * 4 + ["PASS"]
    shares = [float(share) for share in re.findall(r'<i style="width: ([\d.]+)%">', text)]
    worst = max(ratio for probe in reports[-1].coverage for ratio in probe.ratios.values())
    np.testing.assert_allclose(shares, [100] * 4 + [100 * worst], rtol=1e-2)


def test_the_gradient_that_failed_stands_in_the_first_column(reports, tmp_path):
    reports[2].to_html(tmp_path / "report.html")
    columns = re.findall('<th scope="col">(.*?)</th>', (tmp_path / "report.html").read_text())
    assert columns == ["probe", "params.b", "y", "x", "params.W"]


def test_a_fault_is_explained_by_two_formulas_and_the_equation_of_the_derivation(tmp_path):
    def slope(x):
        return 1 / (1 + np.exp(-x))

    report = tn.verify((slope, lambda args, dy: (dy,)), inputs=((4, 3),))
    assert report.findings[0].fault == "σ′ missing"
    report.to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    computed, expected = re.search("<dt>computed</dt><dd>(.*?)</dd><dt>instead of</dt><dd>(.*?)</dd>", text).groups()
    assert mathml("∂E/∂a") in computed
    assert mathml("∂E/∂a ⊗ f′(z)") in expected
    assert f'(20) <span class="formula">{mathml(EQUATIONS[19].formula)}</span>' in expected


def test_every_probe_that_ran_is_explained(reports, tmp_path):
    reports[0].to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    linked, explained = (set(re.findall(pattern, text)) for pattern in ('href="#(.*?)"', '<dt id="(.*?)"'))
    assert linked == explained == {f"probe-{p.name.replace(' ', '-')}" for p in reports[0].coverage if not p.skipped}
    assert rule(1) in html.unescape(text)


def test_every_entry_of_a_small_tensor_is_a_cell_with_its_number(reports, tmp_path):
    reports[0].to_html(tmp_path / "report.html")
    maps = re.findall('<table class="map written">(.*?)</table>', (tmp_path / "report.html").read_text())
    assert [cells.count("<td") for cells in maps] == [12, 12, 12]
    finding = next(f for f in reports[0].findings if f.got_array is not None)
    for cells, array in zip(maps, (finding.got_array, finding.expected_array), strict=False):
        shown = [float(tip) for tip in re.findall(r'title="\[.*?\] (.*?)"', cells)]
        np.testing.assert_allclose(shown, np.ravel(array), rtol=1e-8)
        texts = [float(text.replace("−", "-")) for text in re.findall(">([^<>]+)</td>", cells)]
        np.testing.assert_allclose(texts, np.ravel(array), rtol=6e-2)


@pytest.mark.parametrize("shape", [(100, 70), (33, 1), (1, 4000), (32, 32)])
def test_a_pooled_square_shows_the_largest_error_of_its_block(shape):
    error = np.random.default_rng(0).random(shape)
    chosen, high, wide = _pooled(error)
    assert max(chosen.shape) <= 32
    for i, j in np.ndindex(*chosen.shape):
        block = error[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
        assert error.flat[chosen[i, j]] == block.max()
    assert error.flat[chosen].max() == error.max()


def forward(x):
    h = np.tanh(x)
    return h * h


def backward(args, dy):
    (x,) = args
    dh = 2 * dy
    return dh * (1 - np.tanh(x) ** 2)


def test_it_marks_the_lines_of_the_forward_and_of_the_backward_that_are_to_blame(tmp_path):
    write_html([tn.verify((forward, backward), inputs=(np.linspace(-1, 1, 6).reshape(2, 3),))], tmp_path / "page.html")
    shown = re.findall(r"<pre.*?>(.*?)</pre>", (tmp_path / "page.html").read_text(), re.DOTALL)
    assert ["def forward(x):" in text for text in shown] == [True, False]
    marked = [re.findall(r"<mark>\s*\d+ ▸ \s*(.*?)</mark>", text) for text in shown]
    assert marked == [["return h * h"], ["dh = 2 * dy"]]


def test_what_the_target_says_is_escaped(page):
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_it_refers_to_nothing_outside_itself(page):
    parsed = Tags(page.read_text())
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object"} == set()
    links = [attrs[name] for _, attrs in parsed.tags for name in ("href", "src") if name in attrs]
    assert all(link.startswith("#") for link in links)
    assert "url(" not in page.read_text()
    assert "@import" not in page.read_text()


def test_a_page_that_cannot_be_written_leaves_the_old_one_and_nothing_else(reports, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        reports[0].to_html(path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_the_page_needs_nothing_installed_but_what_verify_needs(reports, monkeypatch):
    for name in ("jinja2", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert report_page(reports).startswith("<!doctype html>")


def browse(folder, *args):
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --hide-scrollbars"
    command = [BROWSER, *flags.split(), *more.split(), f"--user-data-dir={folder / 'profile'}", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")
def test_in_a_browser_nothing_overflows_at_any_width(page, tmp_path):
    source = html.escape(page.read_text())
    frames = "".join(f'<iframe style="width:{w}px;height:900px" srcdoc="{source}"></iframe>' for w in (1400, 420, 320))
    script = """onload = () => document.body.append(...[...document.querySelectorAll("iframe")].map(f => {
        const d = f.contentDocument, open = [...d.querySelectorAll("dd, h1, h2, summary, figure")];
        const right = Math.max(...open.map(e => e.getBoundingClientRect().right));
        return `[${d.documentElement.scrollWidth} ${Math.ceil(right)} ${d.documentElement.clientWidth}]`; }))"""
    (tmp_path / "frames.html").write_text(f"<body>{frames}<script>{script}</script>")
    dom = browse(tmp_path, "--window-size=1500,1000", "--dump-dom", (tmp_path / "frames.html").as_uri())
    measured = [
        tuple(map(int, found)) for found in re.findall(r"\[(\d+) (\d+) (\d+)\]", dom.rpartition("</script>")[2])
    ]
    assert len(measured) == 3
    assert all(content <= window and right <= window for content, right, window in measured), measured


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome is installed")
@pytest.mark.parametrize(("setting", "paper"), [(0, "#14171b"), (1, "#ffffff")], ids=["dark", "light"])
def test_in_a_browser_the_page_follows_the_colour_scheme(page, tmp_path, setting, paper):
    from matplotlib.colors import to_hex
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    scheme = f"--blink-settings=preferredColorScheme={setting}"
    browse(tmp_path, scheme, "--window-size=420,800", f"--screenshot={picture}", page.as_uri())
    pixels = imread(picture)
    assert to_hex(pixels[2, 2, :3]) == paper
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
