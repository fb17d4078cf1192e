# SPDX-License-Identifier: Apache-2.0
"""One evaluator for every simulator: episodes of one task or chains of several, scored, resumed, reported."""
