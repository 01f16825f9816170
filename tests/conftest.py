"""Settings of every test: hypothesis draws the same examples each run, and JAX's 64-bit mode stays a scoped one."""

import signal
import sys

import hypothesis
import pytest

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure():
    """Take Ctrl-C as a terminal sends it: who starts the tests in the background may have it ignored, also below."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _jax_is_left_in_32_bit_mode():
    yield
    jax = sys.modules.get("jax")
    assert jax is None or not jax.config.jax_enable_x64
