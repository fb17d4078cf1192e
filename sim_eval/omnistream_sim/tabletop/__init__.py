# SPDX-License-Identifier: Apache-2.0
"""A Panda at a table with a drawer, a slider, a button and coloured blocks, on PyBullet's software renderer."""
