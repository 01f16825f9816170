"""The processes of one run: what they tell each other, so that each does the same at the same time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Processes:
    """The processes that train one network together: this one, or `several`, those of `jax.distributed`.

    All of them make each of these calls, or those that did wait for the others.
    """

    several: bool = False

    @property
    def is_first(self) -> bool:
        """Return whether this is the one that writes files."""
        if not self.several:
            return True
        import jax

        return jax.process_index() == 0

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in any of them."""
        if not self.several:
            return flag
        from jax.experimental.multihost_utils import process_allgather

        return bool(np.any(process_allgather(np.array(flag))))

    def from_first(self, data: bytes | None) -> bytes | None:
        """Return the first one's `data`, whatever the others bring."""
        if not self.several:
            return data
        from jax.experimental.multihost_utils import broadcast_one_to_all

        size = -1 if data is None else len(data)
        header = np.frombuffer(size.to_bytes(8, "little", signed=True), np.uint8)
        size = int.from_bytes(broadcast_one_to_all(header).tobytes(), "little", signed=True)
        if size <= 0:
            return None if size < 0 else b""
        own = np.frombuffer(data, np.uint8) if data and self.is_first else np.zeros(size, np.uint8)
        return bytes(broadcast_one_to_all(own).tobytes())
