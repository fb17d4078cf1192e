# SPDX-License-Identifier: Apache-2.0
"""Exported graphs of the model, for engines that do not run PyTorch: written, checked, and held against it."""
