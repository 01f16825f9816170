"""Verification: is a hand-derived gradient right, and if not, where and why?"""

from tinynet.verification.diagnosis import FAULTS
from tinynet.verification.report import Finding, GradientError, Probe, Report
from tinynet.verification.subjects import TargetError
from tinynet.verification.verify import PROBES, check, check_vjp, verify

__all__ = [
    "FAULTS",
    "PROBES",
    "Finding",
    "GradientError",
    "Probe",
    "Report",
    "TargetError",
    "check",
    "check_vjp",
    "verify",
]
