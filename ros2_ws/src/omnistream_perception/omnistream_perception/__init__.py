# SPDX-License-Identifier: Apache-2.0
"""The perception node: images in; depth, pose, features and points out."""

import os

# Before torch is imported, as OpenMP reads it then. Its threads spin while they wait for each other; when one of them
# is not running because another process has its core, the others burn theirs until the scheduler notices. A step on a
# busy machine of two cores took over a second that way, and 145-430 ms with threads that sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
