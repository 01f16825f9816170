"""The tables of `scripts/benchmark.py`."""
