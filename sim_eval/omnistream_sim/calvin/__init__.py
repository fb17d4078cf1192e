# SPDX-License-Identifier: Apache-2.0
"""CALVIN's long-horizon benchmark (Mees et al. 2022, RA-L 7): its protocol, and an adapter for the real simulator.

Chains, starts, tasks and the oracle's rules are our own implementation of the published rules and need no simulator.
Scenes, instructions and the official oracle come from a checkout of the CALVIN project at run time.
"""
