# SPDX-License-Identifier: Apache-2.0
"""The tabletop as a robot and its cameras in a ROS 2 graph. The one part of the simulators that imports ROS."""
