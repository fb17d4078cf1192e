# SPDX-License-Identifier: Apache-2.0
"""Heads on the backbone's tokens: dual DPT (depth, rays) and camera."""
