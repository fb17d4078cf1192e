# SPDX-License-Identifier: Apache-2.0
"""What every exported graph has passed before anybody sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from omnistream.errors import EngineError

from .lint import lint


def check_graph(path: Path, fixed: Mapping[str, int] | None = None) -> None:
    """onnx's full check, strict shape inference and our TensorRT lint; EngineError with all reasons.

    fixed: values of open sides by name (see `lint`).
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        found = lint(onnx.load(path, load_external_data=False), fixed)
    except (ValidationError, InferenceError) as error:
        raise EngineError(f"{path.name} is no valid ONNX graph: {error}") from error
    if found:
        raise EngineError(f"{path.name} is not what TensorRT takes: {'; '.join(found)}")
