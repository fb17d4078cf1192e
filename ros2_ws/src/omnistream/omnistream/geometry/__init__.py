# SPDX-License-Identifier: Apache-2.0
"""Rotations, rigid transforms and pinhole cameras in numpy. OpenCV optical frames; `T_a_b` maps points of b into a."""
