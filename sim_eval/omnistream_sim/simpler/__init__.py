# SPDX-License-Identifier: Apache-2.0
"""SIMPLER's WidowX tasks on Bridge's table (Li et al. 2024, arXiv 2405.05941): protocol and adapter."""
