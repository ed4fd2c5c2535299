"""Silences decoders. libtiff prints a line on stderr for each bad row of a fax: 4 MB of them put 2.3 GB into the server's log
in 17 seconds.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

# Linux lists here the libraries that this process has loaded.
_MAPS = Path("/proc/self/maps")
_HANDLERS = ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler", "TIFFSetWarningHandlerExt")


def silence_libtiff() -> None:
    """Removes libtiff's error and warning handlers, in each copy of libtiff that Pillow has loaded.

    Its return values, from which Pillow raises its exceptions, stay. Without such a library, or without /proc, it does nothing.
    """
    if not _MAPS.exists():
        return
    for path in set(re.findall(r"\s(/\S*/libtiff\b[^/\s]*\.so[^/\s]*)$", _MAPS.read_text(), re.MULTILINE)):
        library = ctypes.CDLL(path)
        for name in _HANDLERS:
            if handler := getattr(library, name, None):
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)
