# SPDX-License-Identifier: Apache-2.0
"""From what robots record to data sets: import of bags and of other formats, checks, and how fast that is.

The command is `omnistream-data`. What comes out are data sets of `omnistream.episodes`.
"""
