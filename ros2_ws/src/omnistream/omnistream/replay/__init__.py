# SPDX-License-Identifier: Apache-2.0
"""A bag again through the code of the nodes, one message after the other, on any machine: see docs/replay.md."""
