"""Settings of every test: hypothesis draws the same examples each run, and JAX's 64-bit mode stays a scoped one.

tests/stress/ holds what takes long by nature. It runs with `--all`, with which a test that skips itself, for want of
a tool, fails.
"""

import gc
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")

STRESS = Path(__file__).parent / "stress"


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run tests/stress too; what a missing tool skips, fails")


def pytest_ignore_collect(collection_path, config):
    """Leave out the long tests unless all are asked for, or these."""
    named = any("stress" in str(argument) for argument in config.invocation_params.args)
    return True if collection_path == STRESS and not config.getoption("--all") and not named else None


def _not_skipped(report, config):
    if config.getoption("--all") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"with --all nothing is skipped: {report.longrepr[2]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _not_skipped((yield), collector.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    return _not_skipped((yield), item.config)


def pytest_collection_finish():
    """Spare the garbage collector what was imported, which lives as long as the tests."""
    gc.freeze()


def pytest_configure():
    """Take Ctrl-C as a terminal sends it: who starts the tests in the background may have it ignored, also below."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _jax_is_left_in_32_bit_mode():
    yield
    jax = sys.modules.get("jax")
    assert jax is None or not jax.config.jax_enable_x64


@pytest.fixture(autouse=True, scope="module")
def _what_a_module_compiled_is_let_go():
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
