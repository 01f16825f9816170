"""stand-in"""
from dataclasses import dataclass
from typing import Any
@dataclass(frozen=True)
class Wrong:
    forward: Any
    args: Any
    wrt: Any
    dy: Any
    got: Any
    exact: Any
    tolerance: Any
    wrong: Any
    sizes: Any
    constants: Any
def diagnose(runs, *, seconds=10.0, backward_code=()):
    return []
