# SPDX-License-Identifier: Apache-2.0
"""What every exported graph has passed before anybody sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from omnistream.errors import EngineError

from .lint import fix_sides, lint


def check_graph(path: Path, fixed: Mapping[str, int] | None = None, *, tensorrt: bool = True) -> None:
    """onnx's full check, strict shape inference and our TensorRT lint; EngineError with all reasons.

    fixed: values of open sides by name (see `lint`). tensorrt: whether it is meant for TensorRT at all.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(path, load_external_data=False)
        if not tensorrt:
            onnx.shape_inference.infer_shapes(fix_sides(graph, fixed or {}), strict_mode=True)
            return
        found = lint(graph, fixed)
    except (ValidationError, InferenceError) as error:
        raise EngineError(f"{path.name} is no valid ONNX graph: {error}") from error
    if found:
        raise EngineError(f"{path.name} is not what TensorRT takes: {'; '.join(found)}")
