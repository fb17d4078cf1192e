# SPDX-License-Identifier: Apache-2.0
"""Optional libraries: imported when first needed, with a line that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from omnistream.errors import InputError


class MissingExtra(InputError):
    """An optional library is not installed; the message has the line that installs it."""


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`; MissingExtra with the install line if it is missing. `purpose`: "reading video", ..."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        raise MissingExtra(f'{purpose} needs the package {top}: pip install "omnistream[{extra}]" ({error})') from error
