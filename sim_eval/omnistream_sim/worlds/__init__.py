# SPDX-License-Identifier: Apache-2.0
"""Worlds: a batched analytic ray caster. Random scenes in, pictures and exact geometry out; torch and nothing else."""
