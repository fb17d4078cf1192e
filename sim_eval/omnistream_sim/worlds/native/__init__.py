# SPDX-License-Identifier: Apache-2.0
"""The ray caster as compiled loops, generated from the torch functions of this package."""

from .library import NativeUnavailable
from .renderer import NativeRenderer

__all__ = ["NativeRenderer", "NativeUnavailable"]
