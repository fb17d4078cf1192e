# SPDX-License-Identifier: Apache-2.0
"""The model: configuration, backbone, and the whole with its heads. No cache, no ROS, no training."""
