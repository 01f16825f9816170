"""Gradients that are wrong on purpose, by which a test of gradients is itself tested.

`seeded_faults(layer)` builds the ways in which people get a gradient wrong into a right layer or loss: score a test by
how many it finds, and how many it names. `mutate_backward(cls)` makes typing errors in the source of a backward pass.
"""

from tinynet.faults import FAULTS
from tinynet.testing.mutants import Mutant, mutate_backward
from tinynet.testing.seeded_faults import SeededFault, seeded_faults

__all__ = ["FAULTS", "Mutant", "SeededFault", "mutate_backward", "seeded_faults"]
