# SPDX-License-Identifier: Apache-2.0
"""Evaluation of streaming geometry: depth and camera paths, by published protocols and beside their baselines.

protocols       what is measured: sequences, strides, clips, alignment, weighting, with their sources
benchmarks      the published data sets in their on-disk formats; folders: recordings of any kind
predict, score  one sequence through a `StreamSession`; its numbers
run, results    all sequences, resumable; the report
"""
