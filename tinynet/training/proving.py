"""Gradients proven again while a network trains."""

from __future__ import annotations

import numpy as np

from tinynet.layers import Layer
from tinynet.losses import Loss
from tinynet.training.callbacks import Step, StepCallback
from tinynet.trees import map_leaves

__all__ = ["proof_every"]


def proof_every(n: int, net: Layer, loss: Loss) -> StepCallback:
    """Return a callback that proves the gradients against `jax.grad` on the batch at hand, after every `n` updates.

    It raises `tinynet.GradientError`, with the report, where they are wrong.
    """
    done = 0

    def prove(step: Step) -> None:
        nonlocal done
        done += 1
        if done % n == 0:
            from tinynet.verification import verify

            inputs, probes = (np.asarray(step.x), np.asarray(step.y)), ("forward", "rectangular")
            params = map_leaves(np.asarray, step.params)
            verify(net, loss=loss, params=params, inputs=inputs, probes=probes, dtype="float64").raise_if_failed()

    return prove
