# SPDX-License-Identifier: Apache-2.0
"""`python -m omnistream_ros._child MODULE ARGS...`: runs a module that ends when its parent ends.

A parent that is killed outright (SIGKILL, out of memory, a CI job's limit) forwards no signal. Linux can do it for
us: the kernel sends this process SIGTERM when the parent is gone (prctl(2), PR_SET_PDEATHSIG). It is asked for here,
in the child, because Python code between fork and exec is not safe in a parent that has threads.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
PARENT_VARIABLE = "OMNISTREAM_PARENT_PID"


def main() -> None:
    """Ties this process to its parent, then becomes `python -m MODULE`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        expected = os.environ.get(PARENT_VARIABLE, "")
        if expected and os.getppid() != int(expected):  # it died before the line above
            raise SystemExit("the process that started this one is gone")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
