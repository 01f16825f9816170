"""From a wrong array to the name of the mistake.

A name is given only if its hypothesis, computed, reproduces the user's arrays within the tolerance at every shape where
they were wrong. Hypotheses are of three kinds, tried in this order:

1. the exact gradient, spoilt afterwards: a sign, a factor, a transpose, a missing sum, …, each tensor for itself;
2. the right formulas with a wrong ∂E/∂y: one cause that spoils every gradient;
3. the right chain rule with one step replaced inside the layer: another derivative at an activation, another matrix in
   a product.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinynet.verification.diagnosis.chain import of_the_chain, of_updated_params
from tinynet.verification.diagnosis.cotangent import of_dy
from tinynet.verification.diagnosis.evidence import FAULTS, Diagnosis, Evidence
from tinynet.verification.diagnosis.tensor import (
    not_finite,
    of_one_tensor,
    of_some_entries,
    rounded_to_float32,
    when_saturated,
    without_memory,
)

__all__ = ["FAULTS", "Diagnosis", "Evidence", "diagnose"]


def diagnose(evidence: Sequence[Evidence]) -> list[Diagnosis]:
    """Name the faults of plain runs (finite, deterministic, of contiguous arrays); every wrong gradient is in one."""
    failing = [e for e in evidence if e.wrong]
    wrong = [name for name in failing[0].subject.wrt if any(name in e.wrong for e in failing)]
    found = [d for name in wrong if (d := not_finite(name, failing))]
    wrong = [name for name in wrong if not any(name in d.gradients for d in found)]
    if not wrong:
        return _merged(found)
    alone = {name: d for name in wrong if (d := of_one_tensor(name, evidence))}
    if len(alone) < len(wrong):
        common = of_dy(failing, wrong) or rounded_to_float32(wrong, failing) or of_the_chain(failing, wrong)
        if common is not None:
            return _merged([*found, common])
    found += [alone[name] for name in wrong if name in alone]
    for name in wrong:
        if name not in alone:
            found.append(
                of_dy(failing, [name], only=True)
                or of_some_entries(name, evidence)
                or rounded_to_float32([name], failing)
                or of_the_chain(failing, [name], only=True)
                or of_updated_params(name, failing)
                or without_memory(name, evidence)
                or when_saturated(name, evidence)
                or Diagnosis("unknown", (name,), FAULTS["unknown"])
            )
    return _merged(found)


def _merged(found: list[Diagnosis]) -> list[Diagnosis]:
    merged: dict[tuple[str, str], Diagnosis] = {}
    for d in found:
        key = (d.fault, d.explanation)
        known = merged.get(key)
        merged[key] = Diagnosis(d.fault, (*known.gradients, *d.gradients), d.explanation) if known else d
    return list(merged.values())
