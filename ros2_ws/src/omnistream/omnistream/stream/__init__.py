# SPDX-License-Identifier: Apache-2.0
"""Streams: cache policies, the stream state, the gate at the door, and the session that users hold."""
