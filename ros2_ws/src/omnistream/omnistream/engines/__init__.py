# SPDX-License-Identifier: Apache-2.0
"""Engines run steps. They hold weights and graphs, and no stream: that is the state's."""
