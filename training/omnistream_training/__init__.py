# SPDX-License-Identifier: Apache-2.0
"""Training of OmniStream: clips of posed RGB-D in, checkpoints out. Knows `omnistream` and neither ROS nor a simulator.

A renderer or a robot's archive plugs in by name (`omnistream_training.data.live`) or as a folder (`data.folder`).
"""
