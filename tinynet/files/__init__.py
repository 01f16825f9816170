"""Save and load networks: containers of arrays and configurations, written whole or not at all."""

from tinynet.files.container import FileError, load, save

__all__ = ["FileError", "load", "save"]
