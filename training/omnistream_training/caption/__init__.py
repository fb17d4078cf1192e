# SPDX-License-Identifier: Apache-2.0
"""Vision-language alignment: a small decoder reads the backbone's patches and says what is seen."""

from omnistream_training.caption.config import CaptionConfig

__all__ = ["CaptionConfig"]
