# SPDX-License-Identifier: Apache-2.0
"""A camera as tokens [1 + rows * columns, D]: a summary (CLS), then patches row by row. Float16, in training as here:
training reads them from a cache on disk, and both shall see the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnistream.engines.base import TAPS
from omnistream.errors import ConfigError, InputError
from omnistream.model.config import ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.policy.config import VisionConfig
from omnistream.stream.preprocess import check_image, network_size, preprocess
from omnistream.stream.session import StreamSession

PIXEL_PATCH = 16
"""Side of the patches of `source: pixels`."""
PIXEL_DIM = 3 * PIXEL_PATCH**2

Tokens = NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class BackboneInput:
    """What features depend on and the hash of a backbone's weights says nothing about."""

    blocks: tuple[int, ...]
    """Those behind `VisionConfig.taps`, which the heads of a checkpoint choose."""
    camera_token: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of the normalisation of pictures in [0, 1]."""

    @classmethod
    def of(cls, vision: VisionConfig, model: ModelConfig) -> BackboneInput:
        """ConfigError for taps that the model does not have."""
        return cls(blocks=tapped_blocks(vision, model), camera_token=model.camera_token, mean=model.mean, std=model.std)


class Eye(Protocol):
    """One camera of a session."""

    def see(self, image: NDArray[np.uint8], stamp: float | None = None) -> Tokens:
        """uint8 [H, W, 3] RGB -> [1 + rows * columns, D]; InputError for an unusable image."""
        ...

    def reset(self) -> None:
        """Forget all frames."""
        ...


class StreamEye:
    """Through the frozen backbone, whose cache remembers."""

    def __init__(
        self,
        model: OmniStream,
        config: VisionConfig,
        *,
        image_size: int | None = None,
        engine: str,
        dtype: str,
        device: str,
    ) -> None:
        """image_size: `config.side` of the camera; None: `config.image_size`."""
        tapped_blocks(config, model.config)  # refuses taps that the model does not have
        self._taps = config.taps
        self.session = StreamSession(
            model,
            engine=engine,
            policy=config.stream,
            image_size=image_size or config.image_size,
            dtype=dtype,
            device=device,
        )

    def see(self, image: NDArray[np.uint8], stamp: float | None = None) -> Tokens:
        result = self.session.step(image, stamp, want=("features", TAPS) if self._taps else ("features",))
        return joined(result.cls, result.features, [result.taps[tap] for tap in self._taps])

    def reset(self) -> None:
        self.session.reset()


class PixelEye:
    """The patches themselves. Nothing to remember."""

    def __init__(self, config: VisionConfig) -> None:
        self._config = config

    def see(self, image: NDArray[np.uint8], stamp: float | None = None) -> Tokens:
        check_image(image)
        return pixel_tokens(image, self._config.side(*image.shape[:2]))

    def reset(self) -> None:
        pass


def joined(cls: NDArray[np.float32], features: NDArray[np.float32], taps: Sequence[NDArray[np.float32]] = ()) -> Tokens:
    """CLS [D], features [rows, columns, D] and taps of the same shape as tokens [1 + rows * columns, D * (1 + taps)].

    CLS has zeros in the place of taps: there is one summary.
    """
    patches = np.concatenate([features, *taps], -1)
    tokens = np.zeros((1 + features.shape[0] * features.shape[1], patches.shape[-1]), np.float16)
    with np.errstate(over="ignore"):  # refused below
        tokens[0, : len(cls)] = cls
        tokens[1:] = patches.reshape(-1, patches.shape[-1])
    return _finite(tokens)


def pixel_tokens(image: NDArray[np.uint8], image_size: int) -> Tokens:
    """uint8 [H, W, 3] -> normalised patches [1 + rows * columns, 768]; the summary is their mean."""
    size = network_size(image.shape[0], image.shape[1], image_size, PIXEL_PATCH)
    pixels = preprocess(image, size, _PIXELS)[0]
    rows, columns = size[0] // PIXEL_PATCH, size[1] // PIXEL_PATCH
    patches = pixels.reshape(3, rows, PIXEL_PATCH, columns, PIXEL_PATCH).permute(1, 3, 0, 2, 4)
    flat = patches.reshape(rows * columns, PIXEL_DIM)
    return torch.cat([flat.mean(0, keepdim=True), flat]).to(torch.float16).numpy()


def grid_of(height: int, width: int, config: VisionConfig, patch: int) -> tuple[int, int]:
    """(rows, columns) of patches of a camera's images. patch: the backbone's; `PIXEL_PATCH` for pixels."""
    h, w = network_size(height, width, config.side(height, width), patch)
    return h // patch, w // patch


def feature_size(config: VisionConfig, model: ModelConfig | None) -> tuple[int, int]:
    """(channels of a token, side of a patch); ConfigError where a backbone is needed and none is given."""
    if config.source == "pixels":
        return PIXEL_DIM, PIXEL_PATCH
    if model is None:
        raise ConfigError("vision.source is 'backbone'; expected a backbone's checkpoint")
    return model.backbone.dim * (1 + len(tapped_blocks(config, model))), model.backbone.patch_size


def tapped_blocks(config: VisionConfig, model: ModelConfig) -> tuple[int, ...]:
    """Blocks of the backbone whose patches the policy reads beside the final ones; ConfigError for taps it has not."""
    found = () if model.heads is None else model.heads.taps
    if config.taps and config.taps[-1] >= len(found):
        raise ConfigError(f"vision.taps is {config.taps}; the backbone's checkpoint has {len(found)} taps")
    return tuple(found[tap] for tap in config.taps)


def stream_tokens(cls: Tensor, patches: Tensor, taps: Sequence[Tensor] = ()) -> Tokens:
    """As `joined`, for a batch: cls [B, D], patches and taps [B, N, D] -> [B, 1 + N, D * (1 + taps)]."""
    whole = torch.cat([patches, *taps], -1)
    first = torch.nn.functional.pad(cls, (0, whole.shape[-1] - cls.shape[-1]))
    return _finite(torch.cat([first[:, None], whole], 1).to(torch.float16).cpu().numpy())


def _finite(tokens: Tokens) -> Tokens:
    """The tokens; InputError for NaN, or values beyond float16, as blocks before the final norm may have."""
    if not np.isfinite(tokens).all():
        raise InputError(
            "features are NaN or beyond 65504, the largest float16; a policy cannot read them (vision.taps?)"
        )
    return tokens


class _PixelNormalisation:
    """What `preprocess` reads of a model's configuration: to [-1, 1]."""

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)


_PIXELS: ModelConfig = _PixelNormalisation()  # type: ignore[assignment]
