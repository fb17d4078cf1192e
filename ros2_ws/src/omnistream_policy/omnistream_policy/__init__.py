# SPDX-License-Identifier: Apache-2.0
"""Policy node: images or features and an instruction in, safe robot commands out. Not a certified safety function."""
