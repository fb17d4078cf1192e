# SPDX-License-Identifier: Apache-2.0
"""The ray caster compiled: loops generated from the torch functions of this package, for CPU and CUDA."""

from .compiled import NativeUnavailable
from .cpu import NativeRenderer
from .gpu import CudaRenderer

__all__ = ["CudaRenderer", "NativeRenderer", "NativeUnavailable"]
