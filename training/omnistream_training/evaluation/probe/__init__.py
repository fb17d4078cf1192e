# SPDX-License-Identifier: Apache-2.0
"""What frozen features know: where things are, which colour they have, what moves. `omnistream-eval probe`.

scenes     rendered clips of a live source, with the answers
tasks      the questions, as samples with answers
inputs     what a probe may see: features of a network, of random ones, pixels
ridge      the probe: ridge regression in closed form, its strength chosen on validation scenes
measure    errors per scene, intervals, differences
"""
