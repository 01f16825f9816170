"""Seeded faults: the ways in which people get a gradient wrong, each built into a right layer or loss.

Who tests gradients can score the test with them: how many does it find, how many does it name?
"""

from tinynet.testing.faults.fault import FAULTS, SeededFault
from tinynet.testing.faults.seeding import seeded_faults

__all__ = ["FAULTS", "SeededFault", "seeded_faults"]
