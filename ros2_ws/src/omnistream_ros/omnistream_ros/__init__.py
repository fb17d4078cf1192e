# SPDX-License-Identifier: Apache-2.0
"""What every ROS 2 node of OmniStream needs."""
