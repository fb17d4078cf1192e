# SPDX-License-Identifier: Apache-2.0
"""Clips of posed RGB-D: what a batch is, where it comes from, and how it is augmented."""

from omnistream_training.data.batch import ClipBatch

__all__ = ["ClipBatch"]
