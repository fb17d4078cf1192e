# SPDX-License-Identifier: Apache-2.0
"""Images in, actions out, on the robot: equal to the batch that training computes, and strict at its door."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from omnistream.contract import Camera, Contract
from omnistream.errors import ConfigError, ContractError, InputError
from omnistream.model.omnistream import OmniStream
from omnistream.policy.checkpoint import LoadedPolicy
from omnistream.policy.session import CameraFeatures, PolicySession
from omnistream.policy.vision import PIXEL_DIM, pixel_tokens
from omnistream.stream.preprocess import network_size, preprocess
from omnistream.stream.session import StreamSession
from omnistream.weights import model_hash, random_model
from tests.omnistream.policy.conftest import CONFIG, MODEL, images, make_policy

STATE = np.array([0.1, 0.2, 0.3], np.float32)


def session_of(policy: LoadedPolicy, backbone: OmniStream | None) -> PolicySession:
    session = PolicySession(policy, backbone, engine="torch", device="cpu")
    session.set_instruction("open the drawer")
    return session


@pytest.mark.parametrize("enlarge", [True, False])
def test_streamed_actions_equal_those_of_the_whole_clip(
    contract: Contract, backbone: OmniStream, enlarge: bool
) -> None:
    """Ten frames one by one, against one pass of the backbone over all of them under the same cache policy."""
    vision = dataclasses.replace(CONFIG.vision, image_size=80, enlarge=enlarge)
    policy = make_policy(contract, dataclasses.replace(CONFIG, vision=vision), backbone)
    frames, session = images(contract, 10), session_of(policy, backbone)
    streamed = np.stack([session.step(frame, STATE).actions for frame in frames])
    visual = []
    for camera in contract.cameras:
        size = network_size(camera.height, camera.width, 80) if enlarge else (camera.height, camera.width)
        clip = torch.cat([preprocess(frame[camera.name], size, MODEL) for frame in frames])[None]
        with torch.no_grad():
            out = backbone.backbone(clip, CONFIG.vision.stream)
        visual.append(torch.cat([out.cls[0][:, None], out.patches[0]], 1).half())
    words = torch.tensor([policy.tokens.encode("open the drawer").ids]).expand(10, -1)
    with torch.no_grad():
        out = policy.network(visual, words, torch.ones_like(words, dtype=torch.bool), torch.tensor(STATE).expand(10, 3))
    batch = policy.scaling.restore(out.arm.numpy(), out.gripper.sigmoid().numpy())
    assert np.abs(streamed - batch).max() < 1e-4
    assert np.abs(np.diff(streamed, axis=0)).max() > 1e-3  # they do depend on what is seen


def test_a_chunk_says_what_its_numbers_are(contract: Contract, policy: LoadedPolicy, backbone: OmniStream) -> None:
    chunk = session_of(policy, backbone).step(images(contract, 1)[0], STATE, stamp=4.5)
    assert chunk.actions.shape == (4, 7) and chunk.opened.shape == (4, 1)
    assert chunk.names == contract.action_names and chunk.units == ("m",) * 3 + ("rad",) * 3 + ("1",)
    assert chunk.rate == 10 and chunk.grippers == (6,) and chunk.stamp == 4.5 and chunk.index == 0
    assert set(np.unique(chunk.actions[:, 6])) <= {-1.0, 1.0}
    assert set(chunk.timings) == {"vision", "policy"}


def test_reset_forgets_frames_and_keeps_the_instruction(
    contract: Contract, policy: LoadedPolicy, backbone: OmniStream
) -> None:
    frames, session = images(contract, 3), session_of(policy, backbone)
    first = session.step(frames[0], STATE).actions
    session.observe(frames[1])
    assert not np.allclose(session.step(frames[0], STATE).actions, first, atol=1e-6)  # it remembers
    session.reset()
    assert session.frames_seen == 0 and session.instruction == "open the drawer"
    assert np.array_equal(session.step(frames[0], STATE).actions, first)


def test_a_new_instruction_changes_the_actions_and_not_the_memory(
    contract: Contract, policy: LoadedPolicy, backbone: OmniStream
) -> None:
    frames, session = images(contract, 2), session_of(policy, backbone)
    before = session.step(frames[0], STATE).actions
    encoded = session.set_instruction("Lift the purple cube!")
    assert encoded.unknown == ("purple",) and session.frames_seen == 1
    assert not np.allclose(session.act(STATE).actions, before, atol=1e-6)
    with pytest.raises(ConfigError, match="more than 128"):
        session.set_instruction("lift " * 200)
    assert session.instruction == "Lift the purple cube!"


def test_a_blank_instruction_is_one(contract: Contract, policy: LoadedPolicy, backbone: OmniStream) -> None:
    session = session_of(policy, backbone)
    session.set_instruction("")
    assert np.isfinite(session.step(next(iter(images(contract, 1))), STATE).actions).all()


def test_padding_an_instruction_changes_nothing(policy: LoadedPolicy) -> None:
    draw = torch.Generator().manual_seed(0)
    visual = [torch.randn(1, 1 + r * c, 32, generator=draw) for r, c in policy.shape.grids]
    words = torch.tensor([policy.tokens.encode("open the drawer").ids])
    padded = torch.cat([words[:, :2], torch.zeros(1, 5, dtype=torch.long), words[:, 2:]], 1)
    known = torch.tensor([[True, True, *[False] * 5, True]])
    with torch.no_grad():
        a = policy.network(visual, words, torch.ones_like(words, dtype=torch.bool), torch.zeros(1, 3))
        b = policy.network(visual, padded, known, torch.zeros(1, 3))
    assert torch.allclose(a.arm, b.arm, atol=1e-6) and torch.allclose(a.gripper, b.gripper, atol=1e-6)


def test_features_of_another_stream_do_as_well_as_images(
    contract: Contract, policy: LoadedPolicy, backbone: OmniStream
) -> None:
    """Perception and policy share one backbone: its feature map goes in, with the hash of what made it."""
    frames, alone = images(contract, 3), session_of(policy, backbone)
    fed = session_of(policy, None)
    streams = {
        name: StreamSession(backbone, engine="torch", policy=CONFIG.vision.stream, image_size=64, dtype="float32")
        for name in policy.shape.cameras
    }
    for frame in frames:
        features = {}
        for name, stream in streams.items():
            result = stream.step(frame[name])
            features[name] = CameraFeatures(features=result.features, cls=result.cls, backbone=stream.backbone_hash)
        assert np.array_equal(fed.step(features, STATE).actions, alone.step(frame, STATE).actions)
    wrong = {name: dataclasses.replace(f, backbone="0" * 16) for name, f in features.items()}
    with pytest.raises(ContractError, match="0000000000000000"):
        fed.observe(wrong)
    with pytest.raises(ConfigError, match="no backbone"):
        fed.observe(frames[0])


def test_another_backbone_is_refused_with_both_hashes(policy: LoadedPolicy, backbone: OmniStream) -> None:
    other = random_model(MODEL, 1)
    with pytest.raises(ContractError) as error:
        PolicySession(policy, other)
    assert model_hash(backbone.backbone) in str(error.value) and model_hash(other.backbone) in str(error.value)


def test_another_robot_is_refused_with_both_sides(
    contract: Contract, policy: LoadedPolicy, backbone: OmniStream
) -> None:
    other = dataclasses.replace(contract, rate=30.0, action=dataclasses.replace(contract.action, mode="absolute"))
    with pytest.raises(ContractError) as error:
        PolicySession(policy, backbone, contract=other)
    for side in ("10.0", "30.0", "delta", "absolute", "policy", "robot"):
        assert side in str(error.value)


def test_cameras_that_the_policy_does_not_use_are_no_difference(contract: Contract, policy: LoadedPolicy) -> None:
    more = dataclasses.replace(contract, cameras=(Camera("rear", 10, 10), *reversed(contract.cameras)))
    policy.check_contract(more)
    with pytest.raises(ContractError, match="wrist"):
        policy.check_contract(dataclasses.replace(contract, cameras=contract.cameras[:1]))


def test_what_is_missing_or_misshapen_is_named(contract: Contract, policy: LoadedPolicy, backbone: OmniStream) -> None:
    session, frame = PolicySession(policy, backbone, engine="torch"), images(contract, 1)[0]
    with pytest.raises(ConfigError, match="no instruction"):
        session.act(STATE)
    session.set_instruction("open the drawer")
    with pytest.raises(ConfigError, match="nothing observed"):
        session.act(STATE)
    with pytest.raises(InputError, match="no image of wrist"):
        session.observe({"static": frame["static"]})
    with pytest.raises(InputError, match=r"'static' is \[32, 64, 3\]; the contract says \[64, 64, 3\]"):
        session.observe(frame | {"static": frame["static"][:32]})
    session.observe(frame)
    for state in (None, np.zeros(2), np.array([0, np.nan, 0])):
        with pytest.raises(InputError, match="expected 3 finite numbers"):
            session.act(state)


def test_a_policy_on_pixels_needs_no_backbone(contract: Contract) -> None:
    config = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, source="pixels"))
    policy = make_policy(contract, config, None)
    session, frames = session_of(policy, None), images(contract, 2)
    first = session.step(frames[0], STATE).actions
    session.observe(frames[1])
    assert np.array_equal(session.step(frames[0], STATE).actions, first)  # nothing is remembered


def test_pixel_tokens_are_patches_row_by_row() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[16:, 32:] = 255  # the last patch of the second row
    tokens = pixel_tokens(image, 39)  # 39**2 pixels: 32 x 48
    assert tokens.shape == (7, PIXEL_DIM)
    assert (tokens[6] == 1).all() and (tokens[1:6] == -1).all()
    assert tokens[0] == pytest.approx(-1 + 2 / 6, abs=1e-3)


def test_a_policy_with_a_goal_says_where_it_is_going(backbone: OmniStream, contract: Contract) -> None:
    config = dataclasses.replace(CONFIG, goal=("pz", "px"), keyframes=3)
    policy = make_policy(contract, config, backbone)
    network = policy.network
    assert network.config.goal and isinstance(network.goal, torch.nn.Sequential)
    torch.nn.init.zeros_(network.goal[-1].weight)
    network.goal[-1].bias.data = torch.tensor([1.0, -2.0])
    network.state_mean[:], network.state_std[:] = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.1, 0.2, 0.3])
    session = PolicySession(policy, backbone, engine="torch", device="cpu")
    session.set_instruction("lift the red cube")
    chunk = session.step(next(iter(images(contract, 1))), np.zeros(3))
    assert chunk.keyframes == pytest.approx(np.array([[3.3, 0.8]] * 3))
    without = PolicySession(make_policy(contract, CONFIG, backbone), backbone, engine="torch", device="cpu")
    without.set_instruction("lift the red cube")
    assert without.step(next(iter(images(contract, 1))), np.zeros(3)).keyframes is None
