# SPDX-License-Identifier: Apache-2.0
"""Training of policies on frozen features: episodes in, a policy's checkpoint, curves and pictures out."""
