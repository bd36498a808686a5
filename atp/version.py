"""The version of the package, and the name with which its programs introduce themselves."""

from __future__ import annotations

import platform
from typing import Final

__all__ = ["USER_AGENT", "VERSION"]

VERSION: Final = "1.0.0a1"  # pyproject.toml reads it from here
USER_AGENT: Final = f"atp/{VERSION} Python/{platform.python_version()}"
