"""Hypothesis strategies: random networks, which shrink to the smallest one that fails."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinynet.layers import Layer, Linear, Sequential, Sigmoid

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

DEPTHS = (1, 2, 3, 4, 5)
WIDTHS = (1, 2, 3, 5, 16)
BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Network:
    """A network and the shape (m, n_in) of an input that fits it."""

    net: Sequential
    shape: tuple[int, int]


def networks(activations: Sequence[Layer] = (Sigmoid(),)) -> SearchStrategy[Network]:
    """Draw networks of 1 to 5 affine maps, each followed by one of `activations` or by none.

    The widths are of `WIDTHS`, the batch of `BATCHES`. Shrinking goes towards few layers, narrow ones, and m = 1.

    Raises:
        ImportError: hypothesis is not installed.
    """
    try:
        from hypothesis import strategies as st
    except ImportError:
        raise ImportError('networks needs hypothesis; use pip install "tinynet-grad[verify]"') from None

    def build(depth: int) -> SearchStrategy[Network]:
        widths = st.lists(st.sampled_from(WIDTHS), min_size=depth + 1, max_size=depth + 1)
        following = st.lists(st.sampled_from([None, *activations]), min_size=depth, max_size=depth)
        return st.builds(_network, widths, following, st.sampled_from(BATCHES))

    return st.sampled_from(DEPTHS).flatmap(build)


def _network(widths: list[int], activations: list[Layer | None], m: int) -> Network:
    layers: list[Layer] = []
    for (n_in, n_out), activation in zip(itertools.pairwise(widths), activations, strict=True):
        layers += [Linear(n_in, n_out)] + ([activation] if activation is not None else [])
    return Network(Sequential(*layers), (m, widths[0]))
