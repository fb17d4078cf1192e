# SPDX-License-Identifier: Apache-2.0
"""The compiled renderer on the CPU.

It runs on the calling thread and without Python's lock, so a second thread can train meanwhile.
"""

from __future__ import annotations

import ctypes

from ..quality import Job, Pictures
from ..tables import FrameTables
from .compiled import SIDE, load
from .job import JobStruct, call


class NativeRenderer:
    """Same call as `TorchRenderer`, for tables on the CPU."""

    def __init__(self, octaves: int, side: int = SIDE) -> None:
        """NativeUnavailable when there is no C++ compiler, or it fails."""
        self._library = load(octaves, side)
        if self._library.job_bytes() != ctypes.sizeof(JobStruct):
            raise RuntimeError("the layout of Job in driver.cpp and in job.py differs")

    def __call__(self, tables: FrameTables, job: Job) -> Pictures:
        """Pictures of all frames of the tables."""
        made = call(tables, job)
        self._library.render_frames(ctypes.byref(made.struct))
        return made.pictures()
