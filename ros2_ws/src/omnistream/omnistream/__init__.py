# SPDX-License-Identifier: Apache-2.0
"""OmniStream: a causal streaming vision backbone for robots."""
