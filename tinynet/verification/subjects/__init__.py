"""What can be verified, brought to one form: named arrays in, an output, named gradients out.

A tinynet `Layer` or `Loss`, a network with its loss, a pair of functions, a closure that returns (y, backprop), and an
object that keeps its cache and gradients on `self` all become a `Subject`. Nothing here judges anything.
"""

from tinynet.verification.subjects.contract import LayerSubject, LossSubject, NetworkSubject
from tinynet.verification.subjects.likeness import drawn_like, nearby
from tinynet.verification.subjects.making import make_subject
from tinynet.verification.subjects.subject import MISSING, Args, Gradients, Session, Subject, TargetError

__all__ = [
    "MISSING",
    "Args",
    "Gradients",
    "LayerSubject",
    "LossSubject",
    "NetworkSubject",
    "Session",
    "Subject",
    "TargetError",
    "drawn_like",
    "make_subject",
    "nearby",
]
