"""Gradients that are wrong on purpose, by which a test of gradients is itself tested."""

from tinynet.testing.faults import FAULTS, SeededFault, seeded_faults
from tinynet.testing.mutants import Mutant, mutate_backward

__all__ = ["FAULTS", "Mutant", "SeededFault", "mutate_backward", "seeded_faults"]
