# SPDX-License-Identifier: Apache-2.0
"""The perception node: images in; depth, pose, features and points out."""
