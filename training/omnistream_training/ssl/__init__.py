# SPDX-License-Identifier: Apache-2.0
"""Self-supervision: a student sees crops with holes and predicts what an averaged copy of itself sees without them."""

from omnistream_training.ssl.config import SslConfig

__all__ = ["SslConfig"]
