# SPDX-License-Identifier: Apache-2.0
"""Opening checkpoints of every known kind, loading models from them, and importing foreign ones into our format.

What a robot runs is safetensors. The one pickle-based file in this house, Meta's DINOv3 .pth, goes through torch's
weights-only loader, and only in `load_backbone` and `import_checkpoint`, which training and people call by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnistream.errors import CheckpointError
from omnistream.model.backbone import Backbone
from omnistream.model.omnistream import OmniStream
from omnistream.weights import dinov3_meta, dinov3_transformers, released
from omnistream.weights.checkpoint import BACKBONE, Checkpoint
from omnistream.weights.files import home_expanded, read_json
from omnistream.weights.own import CONFIG_FILE, WEIGHTS_FILE, open_own, write_checkpoint
from omnistream.weights.shipped import checkpoint_path
from omnistream.weights.tensor_source import TensorSource, pth_file, safetensors_directory, safetensors_file

PTH_SUFFIXES = (".pth", ".pt")
MODEL_TYPE_TRANSFORMERS = "dinov3_vit"
MODEL_TYPE_RELEASED = "vfm"


def load_model(path: str | Path) -> OmniStream:
    """The model in a checkpoint: float32, on the CPU, in eval mode. Backbone-only files give a model without heads.

    path: our directory, a released OmniStream directory, a transformers DINOv3 directory, a DINOv3 safetensors file,
    or `default` for the weights that come with the package.
    Raises `CheckpointError`, naming what is missing, unknown, misshapen, not finite, truncated or too new.
    """
    return open_checkpoint(path).model()


def load_backbone(path: str | Path, **rope_overrides: Any) -> Backbone:
    """The backbone alone, as `load_model`; also reads Meta's DINOv3 .pth (weights only, no code in it can run).

    rope_overrides: `temporal_rope`, `rope_layout`, `rope_base` in place of the checkpoint's. `temporal_rope=False`
    makes a single image of a DINOv3 checkpoint come out exactly as from DINOv3.
    """
    return open_checkpoint(path, allow_pth=True).backbone(**rope_overrides)


def import_checkpoint(
    source: str | Path,
    directory: str | Path,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
) -> Checkpoint:
    """Read a checkpoint of any kind and write it in our format; returns what was written, opened."""
    origin = open_checkpoint(source, allow_pth=True)
    written = write_checkpoint(
        origin.config,
        origin.state_dict(),
        directory,
        dtype=dtype,
        made_by=f"omnistream-weights import {origin.path.resolve().name}",
        parent=origin.provenance(),
        overwrite=overwrite,
    )
    return open_checkpoint(written)


def open_checkpoint(path: str | Path, *, allow_pth: bool = False) -> Checkpoint:
    """Find out what `path` is, read its configuration and check the header of its weights. Reads no weights."""
    path = home_expanded(checkpoint_path(path))
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; expected a checkpoint directory or a .safetensors file")
    if path.suffix in PTH_SUFFIXES:
        if not allow_pth:
            raise CheckpointError(
                f"{path} is a pickle-based file; models run from safetensors. "
                f"Import it once: omnistream-weights import {path} <directory>"
            )
        return _open_bare(path, pth_file(path))
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} has suffix {path.suffix!r}; expected a directory, .safetensors or .pth")
    if path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file():
        return _open_directory(path.parent)
    return _open_bare(path, safetensors_file(path))


def _open_directory(directory: Path) -> Checkpoint:
    path = directory / CONFIG_FILE
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in directory.iterdir())[:8]) or "nothing"
        raise CheckpointError(f"{directory} has no {CONFIG_FILE}; found {found}")
    data = read_json(path)
    if "format" in data:
        return open_own(directory)
    if data.get("model_type") == MODEL_TYPE_TRANSFORMERS:
        source = dinov3_transformers.canonical(safetensors_directory(directory))
        config = dinov3_transformers.read_config(directory)
        mapping = dinov3_transformers.mapping(config.backbone, dinov3_transformers.absent_biases(directory))
        return Checkpoint(directory, "dinov3-transformers", config, source, mapping.prefixed(BACKBONE))
    if "video_aggregator_layer" in data or data.get("model_type") == MODEL_TYPE_RELEASED:
        config = released.read_config(directory)
        mapping = released.mapping(config.backbone).prefixed(BACKBONE)
        return Checkpoint(directory, "released", config, safetensors_directory(directory), mapping)
    raise CheckpointError(
        f"{path} is of no known kind (model_type {data.get('model_type')!r}); expected format 'omnistream', "
        f"a released OmniStream config (video_aggregator_layer), or model_type {MODEL_TYPE_TRANSFORMERS!r}"
    )


def _open_bare(path: Path, source: TensorSource) -> Checkpoint:
    """A file without config.json: DINOv3 in either naming, whose sizes the shapes tell."""
    names = source.tensors
    if "embeddings.cls_token" in names:
        source = dinov3_transformers.canonical(source)
        config = dinov3_transformers.infer_config(source)
        mapping = dinov3_transformers.mapping(config.backbone)
        return Checkpoint(path, "dinov3-transformers", config, source, mapping.prefixed(BACKBONE))
    if "cls_token" in names:
        config = dinov3_meta.infer_config(source)
        checkpoint = Checkpoint(
            path, "dinov3-meta", config, source, dinov3_meta.mapping(config.backbone).prefixed(BACKBONE)
        )
        dinov3_meta.check_periods(source, config.backbone)
        return checkpoint
    if released.PREFIX + "cls_token" in names or "backbone.cls_token" in names:
        raise CheckpointError(f"{path} needs its {CONFIG_FILE} beside it (give the directory)")
    shown = ", ".join(list(names)[:4]) or "nothing"
    raise CheckpointError(f"{path} holds no known backbone (no cls_token in a known naming); found {shown}, ...")
