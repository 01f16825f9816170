"""Verification: is a hand-derived gradient right, and if not, where and why?"""

from tinynet.verification.adapters import TargetError
from tinynet.verification.examples import PROBES
from tinynet.verification.forward_mode import check_jvp
from tinynet.verification.gradcheck import gradcheck
from tinynet.verification.report import Finding, GradientError, Probe, Report
from tinynet.verification.verify import check, check_vjp, verify

__all__ = [
    "PROBES",
    "Finding",
    "GradientError",
    "Probe",
    "Report",
    "TargetError",
    "check",
    "check_jvp",
    "check_vjp",
    "gradcheck",
    "verify",
]
