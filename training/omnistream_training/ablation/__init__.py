# SPDX-License-Identifier: Apache-2.0
"""What each task of pre-training is worth: the same run without it, over seeds (`omnistream-train ablation`).

plan       the configuration that all runs share, the variants, and the budget
measure    what the frozen features of a finished run are good for: depth, pose, probes, a policy
report     differences with intervals, and whether they point where the paper's do
command    all of it, run by run; a stopped experiment goes on
"""
