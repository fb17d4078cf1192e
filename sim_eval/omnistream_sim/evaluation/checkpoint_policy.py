# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of ours as the evaluator's policy: streaming, with every frame of the episode in its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.contract import Camera
from omnistream.errors import ConfigError, ContractError
from omnistream.policy.checkpoint import POLICY_FILE, load_policy
from omnistream.policy.session import PolicySession
from omnistream.weights import default_model, load_model, model_hash
from omnistream.weights.files import read_json

from .convention import Convention
from .protocols import Observation

CAMERAS = {
    "rgb_static": ("static", "front", "image", "image_0", "main", "3rd_view_camera"),
    "rgb_gripper": ("gripper", "wrist", "hand"),
}
"""Names in contracts for the evaluator's cameras, the first for choice."""


class CheckpointPolicy:
    """PolicySession behind the evaluator's protocol."""

    def __init__(
        self,
        path: Path,
        *,
        convention: Convention | None = None,
        weights: str = "",
        language_model: str = "",
        engine: str = "auto",
        dtype: str = "float32",
        device: str = "auto",
    ) -> None:
        """
        convention: of the simulator's actions; None: they are as in the checkpoint's contract.
        weights: of the backbone that the policy was trained on; not needed by one that looks at pixels, or that was
        trained on the default weights.
        language_model: directory of the pre-trained one, for a policy that has one.
        """
        self._path, self._weights = path, weights
        loaded = load_policy(path, language_model=language_model or None)
        backbone = load_model(weights) if weights else None
        if backbone is None and loaded.config.vision.source != "pixels":
            backbone, about = default_model()
            found = model_hash(backbone.backbone)
            if found != loaded.contract.backbone:
                raise ConfigError(
                    f"{path} was trained on features of backbone {loaded.contract.backbone}, which is not the default "
                    f"({about}, {found}); give its weights (--weights PATH)"
                )
        self._session = PolicySession(loaded, backbone, engine=engine, dtype=dtype, device=device)
        self._cameras = {name: _key(name, path) for name in loaded.shape.cameras}
        self._convention = convention
        if convention is not None:
            convention.check(loaded.contract, str(path))

    def reset(self) -> None:
        """Forget all frames."""
        self._session.reset()

    def observe(self, observation: Observation) -> None:
        """Remember a frame, no action wanted."""
        self._session.observe(self._images(observation))

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """A chunk [K, A] in the simulator's units."""
        if instruction != self._session.instruction:
            self._session.set_instruction(instruction)
        state = observation["state"] if self._session.policy.shape.state else None
        actions = self._session.step(self._images(observation), state).actions
        if self._convention is None:
            return actions
        return self._convention.to_simulator(actions, self._session.policy.contract)

    def describe(self) -> dict[str, Any]:
        """For the report. The digest is there so that a run is not gone on with after its policy was trained anew."""
        contract = self._session.policy.contract
        digest = read_json(self._path / POLICY_FILE)["weights_sha256"]
        told = {"checkpoint": str(self._path), "policy_sha256": digest}
        told |= {"weights": self._weights, "backbone": contract.backbone}
        return told | {"engines": self._session.engines, "device": str(self._session.device)}

    def _images(self, observation: Observation) -> dict[str, NDArray[np.uint8]]:
        missing = [key for key in self._cameras.values() if key not in observation]
        if missing:
            raise ContractError(f"{self._path} needs {missing[0]}; the simulator gives {', '.join(observation)}")
        images = {name: observation[key] for name, key in self._cameras.items()}  # type: ignore[literal-required]
        if self._convention is not None and self._convention.resize:
            contract = self._session.policy.contract
            images = {name: _resized(image, contract.camera(name)) for name, image in images.items()}
        return images


def _resized(image: NDArray[np.uint8], camera: Camera) -> NDArray[np.uint8]:
    """To the size that the policy was trained on, as SIMPLER's own wrappers of policies do."""
    if image.shape[:2] == (camera.height, camera.width):
        return image
    size = (camera.width, camera.height)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _key(camera: str, path: Path) -> str:
    for key, names in CAMERAS.items():
        if camera == key or camera in names:
            return key
    known = ", ".join(name for names in CAMERAS.values() for name in names)
    raise ContractError(f"{path} was trained on camera {camera!r}; the evaluator knows {known}")
