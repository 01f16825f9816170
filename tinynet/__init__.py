"""tinynet: neural networks whose gradients are derived by hand and verified against JAX."""

from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from tinynet import initializers as initializers
    from tinynet import plot as plot
    from tinynet import sklearn as sklearn
    from tinynet.arrays import namespace as namespace
    from tinynet.arrays import scan as scan
    from tinynet.bridges import *
    from tinynet.files import *
    from tinynet.gradients import value_and_grads as value_and_grads
    from tinynet.inspection import summary as summary
    from tinynet.inspection import trace as trace
    from tinynet.layers import *
    from tinynet.losses import *
    from tinynet.optimizers import *
    from tinynet.training import *
    from tinynet.trees import map_leaves as map_leaves
    from tinynet.verification import *
else:
    # The same when the program runs, but a module is imported only when one of its names is asked for: `import tinynet`
    # imports neither NumPy nor JAX.
    import sys
    from importlib import import_module
    from importlib.util import find_spec

    _NAMES_OF = {
        "arrays": ["namespace", "scan"],
        "gradients": ["value_and_grads"],
        "inspection": ["summary", "trace"],
        "trees": ["map_leaves"],
    }
    _PACKAGES = ["layers", "losses", "optimizers", "files", "training", "bridges", "verification"]  # all of `__all__`
    _SUBMODULES = ["initializers", "plot"]  # not sklearn, which a star import must not hide

    def __getattr__(name):
        if name == "__all__":
            value = sorted({*_SUBMODULES, *(public for _, names in _public() for public in names)})
        elif find_spec(f"tinynet.{name}"):
            try:
                value = import_module(f"tinynet.{name}")
            except ImportError as error:  # `tinynet.sklearn` without scikit-learn
                raise AttributeError(str(error)) from error
        else:
            value = _find(name)
        globals()[name] = value
        return value

    def _public():
        """Yield each module that has public names, and their list."""
        yield from _NAMES_OF.items()
        for package in _PACKAGES:
            yield package, import_module(f"tinynet.{package}").__all__

    def _find(name):
        if not name.startswith("_"):
            for module, names in _public():
                if name in names:
                    return getattr(import_module(f"tinynet.{module}"), name)
        raise AttributeError(f"module 'tinynet' has no attribute {name!r}", name=name, obj=sys.modules[__name__])

    def __dir__():
        return sorted({*globals(), *__getattr__("__all__"), "sklearn"})
