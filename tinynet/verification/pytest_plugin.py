"""A pytest plugin: `@pytest.mark.gradients(MyLayer(4, 3))` verifies, one test a probe.

    @pytest.mark.gradients(MyLayer(4, 3), inputs=(5, 4))
    def test_my_layer(): ...

The arguments are those of `tinynet.verify`. A target that is itself a class or a function goes in as `target=`, since
pytest takes a lone one for what is to be marked. The body runs after its probe has passed; if it has an argument
`gradients`, that is the report.

The target is verified once, when the first of its tests runs; each test then shows what its probe found. Nothing of
tinynet is imported before a test has the mark, not even by installing: the wheel has this file as `pytest_tinynet`
too, a module beside the package, because importing one within it would import NumPy and JAX.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tinynet.verification import Report

_REPORTS: pytest.StashKey[dict[int, tuple[pytest.Mark, Report | str]]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line(
        "markers",
        "gradients(target, **options): verify the gradients of target as tinynet.verify(target, **options), "
        "a test for each probe",
    )
    config.stash[_REPORTS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each probe."""
    mark = metafunc.definition.get_closest_marker("gradients")
    if mark is None:
        return
    if "gradients" not in metafunc.fixturenames:
        metafunc.fixturenames.append("gradients")
    metafunc.parametrize("gradients", _probes(mark), indirect=True, ids=lambda probe: probe.replace(" ", "-"))


@pytest.fixture
def gradients(request: pytest.FixtureRequest) -> Any:
    """The report on the target of the mark `gradients`."""
    mark = request.node.get_closest_marker("gradients")
    if mark is None:
        pytest.fail("the fixture gradients needs the mark: @pytest.mark.gradients(target)", pytrace=False)
    return _report(request.node, mark)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Fail or skip as the probe did, before the body."""
    mark = pyfuncitem.get_closest_marker("gradients")
    if mark is not None:
        _judge(_report(pyfuncitem, mark), _probe(pyfuncitem), is_first=_is_first(pyfuncitem, mark))
    return (yield)


def _probes(mark: pytest.Mark) -> tuple[str, ...]:
    from tinynet.verification import PROBES

    wanted = mark.kwargs.get("probes")
    return PROBES if wanted is None else tuple(wanted)


def _probe(item: pytest.Function) -> str:
    return str(item.callspec.params["gradients"])


def _is_first(item: pytest.Function, mark: pytest.Mark) -> bool:
    return _probe(item) == _probes(mark)[0]


def _report(item: pytest.Function, mark: pytest.Mark) -> Report:
    """Return the report; the work is done once a mark. If there is none, the first test says why."""
    known = item.config.stash[_REPORTS]
    if id(mark) not in known:
        from tinynet.verification import verify

        try:
            known[id(mark)] = mark, verify(*mark.args, **mark.kwargs)
        except (TypeError, ValueError) as error:
            known[id(mark)] = mark, f"pytest.mark.gradients: {error}"
    outcome = known[id(mark)][1]
    if not isinstance(outcome, str):
        return outcome
    if _is_first(item, mark):
        pytest.fail(outcome, pytrace=False)
    pytest.skip(outcome)


def _judge(report: Report, probe: str, *, is_first: bool) -> None:
    """Fail if the probe found something; skip if it did not run. The first test also has what belongs to no probe."""
    ran = [p for p in report.coverage if p.name == probe]
    spoilt = {name for p in ran for name, ratio in p.ratios.items() if not ratio <= 1}
    shown = {p.name for p in report.coverage}
    found = []
    for f in report.findings:
        where = f.probe.partition(" (")[0]  # "layout (strided)" is of the probe "layout"
        if where == probe or spoilt & {f.gradient, *f.also} or (is_first and where not in shown):
            found.append(f)
    if found or spoilt:
        pytest.fail("\n".join(map(str, found)) or str(report), pytrace=False)
    if report.verdict == "INCONCLUSIVE" and is_first:
        pytest.fail(str(report), pytrace=False)
    if ran and all(p.skipped for p in ran):
        pytest.skip("; ".join(dict.fromkeys(p.skipped for p in ran)))
