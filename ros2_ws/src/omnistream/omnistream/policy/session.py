# SPDX-License-Identifier: Apache-2.0
"""What a robot holds: images and state in, a chunk of actions in the robot's own units out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from omnistream.contract import Contract
from omnistream.errors import ConfigError, InputError
from omnistream.model.omnistream import OmniStream
from omnistream.policy.checkpoint import LoadedPolicy
from omnistream.policy.tokens import Encoded
from omnistream.policy.vision import Eye, PixelEye, StreamEye, joined
from omnistream.stream.layers import layer_name
from omnistream.weights.identity import model_hash


@dataclass(frozen=True, kw_only=True)
class CameraFeatures:
    """One frame of one camera as another stream computed it (perception's FeatureMap)."""

    features: NDArray[np.float32]
    """[rows, columns, D] final patch tokens; with taps D is longer, see `omnistream.stream.layers`."""
    cls: NDArray[np.float32]
    """[D] final CLS token."""
    backbone: str
    """Hash of the backbone they come from (`StreamSession.backbone_hash`); checked."""
    taps: tuple[int, ...] = ()
    """Which shallower blocks are in `features` beside the last; checked."""


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """Actions for the coming control periods, from the newest observation."""

    actions: NDArray[np.float64]
    """[K, A] in the units below; row 0 is for now."""
    names: tuple[str, ...]
    units: tuple[str, ...]
    rate: float
    """Hz: how long a row lasts."""
    grippers: tuple[int, ...]
    """Columns that are open or closed, and never averaged."""
    opened: NDArray[np.float32]
    """[K, grippers] probability of open, before it was decided."""
    index: int
    """Frames seen since the reset, less one."""
    stamp: float | None
    """Of the images it answers to, s."""
    keyframes: NDArray[np.float32] | None = None
    """[keyframes, goal] where this is going; columns are the state dimensions of `PolicyConfig.goal`, in the contract's
    units. None: a policy that does not say."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds: vision, policy."""


class PolicySession:
    """A policy on one robot.

        session = PolicySession(load_policy("policy/", contract=robot), load_model("weights/"))
        session.set_instruction("open the drawer")
        chunk = session.step({"front": image}, state)

    `observe` feeds images and nothing else: call it for every frame, since the stream remembers. `act` predicts from
    the newest observation. `step` does both.
    """

    def __init__(
        self,
        policy: LoadedPolicy,
        backbone: OmniStream | None = None,
        *,
        contract: Contract | None = None,
        engine: str = "auto",
        dtype: str = "float32",
        device: str = "auto",
    ) -> None:
        """
        backbone: that the policy was trained on; None where it looks at pixels, or features come from another stream.
        contract: of the robot; ContractError prints both sides where they disagree.
        engine, dtype, device: of the stream (see `StreamSession`). The policy saw float32 features in training;
        bfloat16 ones differ by half a percent, which a good policy tolerates and only an evaluation can tell.
        """
        self.policy = policy
        if contract is not None:
            policy.check_contract(contract)
        vision = policy.config.vision
        self._eyes: dict[str, Eye] = {}
        if vision.source == "pixels":
            self._eyes = {name: PixelEye(vision) for name in policy.shape.cameras}
        elif backbone is not None:
            policy.check_backbone(model_hash(backbone.backbone))
            policy.check_backbone_input(backbone.config)
            for name in policy.shape.cameras:
                camera = policy.contract.camera(name)
                side = vision.side(camera.height, camera.width)
                self._eyes[name] = StreamEye(
                    backbone, vision, image_size=side, engine=engine, dtype=dtype, device=device
                )
        where = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(where if device == "auto" else device)
        self._network = policy.network.to(self.device).eval()
        self._words: Encoded | None = None
        self._instruction: str | None = None
        self._seen: list[torch.Tensor] | None = None
        self._frames = 0
        self._stamp: float | None = None
        self._vision_ms = 0.0

    @property
    def instruction(self) -> str | None:
        """The current one; None before the first."""
        return self._instruction

    @property
    def frames_seen(self) -> int:
        """Since the last reset."""
        return self._frames

    @property
    def engines(self) -> list[str]:
        """What runs the backbone, in words; empty where the policy looks at pixels, or at another stream's features."""
        return sorted({str(eye.session.engine.spec) for eye in self._eyes.values() if isinstance(eye, StreamEye)})

    def reset(self) -> None:
        """Forget all frames: the next is the first of an episode. The instruction stays."""
        for eye in self._eyes.values():
            eye.reset()
        self._seen, self._frames, self._stamp, self._vision_ms = None, 0, None, 0.0

    def set_instruction(self, text: str) -> Encoded:
        """What to do from now on; the stream's memory stays. Returns its tokens and the words that nobody knows.

        ConfigError for one that is too long; the old one then stays.
        """
        encoded = self.policy.tokens.encode(text)
        self._words, self._instruction = encoded, text
        return encoded

    def step(
        self,
        images: Mapping[str, NDArray[np.uint8] | CameraFeatures],
        state: ArrayLike | None = None,
        *,
        stamp: float | None = None,
    ) -> ActionChunk:
        """`observe`, then `act`."""
        self.observe(images, stamp=stamp)
        return self.act(state)

    def observe(self, images: Mapping[str, NDArray[np.uint8] | CameraFeatures], *, stamp: float | None = None) -> None:
        """Feed one frame of every camera, uint8 [H, W, 3] RGB or features. Cameras the policy does not use are ignored.

        InputError for a missing camera or an unusable image, ContractError for features of another backbone; nothing is
        remembered then, except by cameras that came before in the policy's order: reset.
        """
        begin = time.perf_counter()
        missing = [name for name in self.policy.shape.cameras if name not in images]
        if missing:
            raise InputError(f"no image of {', '.join(missing)}; got {', '.join(images) or 'none'}")
        seen = [self._see(name, images[name], stamp) for name in self.policy.shape.cameras]
        self._seen = [torch.from_numpy(tokens).to(self.device)[None] for tokens in seen]
        self._frames += 1
        self._stamp = stamp
        self._vision_ms = (time.perf_counter() - begin) * 1e3

    def _see(self, name: str, image: NDArray[np.uint8] | CameraFeatures, stamp: float | None) -> NDArray[np.float16]:
        shape = self.policy.shape
        rows, columns = shape.grids[shape.cameras.index(name)]
        if isinstance(image, CameraFeatures):
            if image.taps != (taps := self.policy.config.vision.taps):
                have, read = layer_name(image.taps), layer_name(taps)
                raise InputError(
                    f"features of {name!r} are {have}; this policy reads {read}: set perception's feature_taps to "
                    f"{list(taps)}, or give it images"
                )
            self.policy.check_backbone(image.backbone, f"source of camera {name!r}")
            found, expected = image.features.shape, (rows, columns, shape.feature_dim)
            if found != expected:
                raise InputError(f"features of {name!r} are {list(found)}; expected {list(expected)}")
            return joined(image.cls, image.features)
        camera = self.policy.contract.camera(name)
        if name not in self._eyes:
            raise ConfigError(f"an image of {name!r}, but the session has no backbone; give it one, or CameraFeatures")
        if isinstance(image, np.ndarray) and image.shape[:2] != (camera.height, camera.width):
            raise InputError(
                f"image of {name!r} is {list(image.shape)}; the contract says [{camera.height}, {camera.width}, 3]"
            )
        return self._eyes[name].see(image, stamp)

    @torch.inference_mode()
    def act(self, state: ArrayLike | None = None) -> ActionChunk:
        """Predict from the newest observation.

        state: [S] as the contract names it, for a policy that uses it. InputError where it is missing, of another size
        or not finite; ConfigError before the first observation or instruction.
        """
        begin = time.perf_counter()
        if self._words is None:
            raise ConfigError("no instruction yet; call set_instruction first")
        if self._seen is None:
            raise ConfigError("nothing observed yet; call observe (or step) first")
        words = torch.tensor([self._words.ids], dtype=torch.long, device=self.device)
        out = self._network(self._seen, words, torch.ones_like(words, dtype=torch.bool), self._state(state))
        arm, opened = out.arm[0].cpu().numpy(), out.gripper[0].sigmoid().cpu().numpy()
        keyframes = None if out.goal is None else self._keyframes(out.goal[0])
        if not all(np.isfinite(found).all() for found in (arm, opened, keyframes) if found is not None):
            raise InputError("the policy gave NaN or infinity; nothing of it is returned")
        contract = self.policy.contract
        return ActionChunk(
            actions=self.policy.scaling.restore(arm, opened),
            names=contract.action_names,
            units=tuple(dimension.unit for dimension in contract.action.dimensions),
            rate=contract.rate,
            grippers=tuple(g.index for g in contract.action.grippers),
            opened=opened,
            index=self._frames - 1,
            stamp=self._stamp,
            keyframes=keyframes,
            timings={"vision": self._vision_ms, "policy": (time.perf_counter() - begin) * 1e3},
        )

    def _keyframes(self, goal: torch.Tensor) -> NDArray[np.float32]:
        which, network = list(self.policy.shape.goal), self._network
        found: NDArray[np.float32] = (goal * network.state_std[which] + network.state_mean[which]).cpu().numpy()
        return found

    def _state(self, state: ArrayLike | None) -> torch.Tensor | None:
        size = self.policy.shape.state
        if not size:
            return None
        values = None if state is None else np.array(state, np.float32)
        if values is None or values.shape != (size,) or not np.isfinite(values).all():
            found = "missing" if values is None else f"{values.tolist()}"
            raise InputError(f"state is {found}; expected {size} finite numbers: {self.policy.contract.state_names}")
        return torch.from_numpy(values).to(self.device)[None]
