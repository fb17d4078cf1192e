# SPDX-License-Identifier: Apache-2.0
"""Words and language models. The real Qwen2.5 is not here: its classes, file layout and prompt are, at tiny size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from omnistream.contract import Contract
from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.omnistream import OmniStream
from omnistream.policy import load_policy, save_policy
from omnistream.policy.checkpoint import LoadedPolicy
from omnistream.policy.config import LanguageConfig, PolicyConfig, preset
from omnistream.policy.language_model import LORA_MARK, language_model_hash
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.session import PolicySession
from omnistream.policy.tokens import PretrainedTokens, WordTokens, words_of
from tests.omnistream.policy.conftest import CONFIG, images, make_policy
from tests.omnistream.policy.tiny_qwen import write_tiny_qwen

STATE = np.zeros(3, np.float32)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("qwen"))


def paper(train: str) -> PolicyConfig:
    base = preset("paper_qwen2_5_7b")
    return dataclasses.replace(
        base,
        chunk=3,
        vision=CONFIG.vision,
        language=dataclasses.replace(base.language, train=train, lora_rank=4),
        head=CONFIG.head,
    )


def paper_policy(qwen: Path, train: str, small: LoadedPolicy) -> LoadedPolicy:
    tokens = PretrainedTokens(qwen)
    torch.manual_seed(1)
    network = PolicyNetwork(paper(train), small.shape, tokens, qwen).eval()
    return dataclasses.replace(small, network=network, tokens=tokens)


@pytest.mark.parametrize("train", ["full", "lora", "frozen"])
def test_the_papers_policy_trains_and_survives_a_round_trip(
    qwen: Path, train: str, policy: LoadedPolicy, tmp_path: Path, backbone: OmniStream, contract: Contract
) -> None:
    if train == "lora":
        pytest.importorskip("peft")
    made = paper_policy(qwen, train, policy)
    words = torch.tensor([made.tokens.encode("open the drawer").ids])
    visual = [torch.randn(1, 1 + r * c, 32) for r, c in made.shape.grids]
    learning = [p for p in made.network.parameters() if p.requires_grad]
    names = [name for name, p in made.network.named_parameters() if p.requires_grad and name.startswith("llm.")]
    assert {"full": len(names) > 20, "lora": all(LORA_MARK in n for n in names) and names, "frozen": not names}[train]
    optimiser = torch.optim.SGD(learning, 0.1)
    for _ in range(2):  # LoRA's B is zero at first, so A moves in the second step
        out = made.network(visual, words, torch.ones_like(words, dtype=torch.bool), torch.zeros(1, 3))
        assert out.arm.shape == (1, 3, 6) and out.gripper.shape == (1, 3, 1)
        optimiser.zero_grad()
        (out.arm.square().sum() + out.gripper.sum()).backward()
        optimiser.step()
    saved = save_policy(made, tmp_path / "policy", language_model=qwen)
    loaded = load_policy(saved, language_model=qwen)
    sessions = [PolicySession(p, backbone, engine="torch", device="cpu") for p in (made, loaded)]
    for session in sessions:
        session.set_instruction("open the drawer")
    a, b = (session.step(images(contract, 1)[0], STATE).actions for session in sessions)
    assert np.array_equal(a, b)
    stored = (saved / "policy.safetensors").stat().st_size
    whole = sum(p.numel() * 4 for p in made.network.parameters())
    assert stored > whole if train == "full" else stored < whole  # what the user's directory has is not copied


def test_a_pretrained_policy_asks_for_its_language_model(qwen: Path, policy: LoadedPolicy, tmp_path: Path) -> None:
    saved = save_policy(paper_policy(qwen, "frozen", policy), tmp_path / "policy", language_model=qwen)
    with pytest.raises(CheckpointError, match="name its directory"):
        load_policy(saved)
    other = tmp_path / "other"
    other.mkdir()
    for path in qwen.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=f"{language_model_hash(qwen)}.*{language_model_hash(other)}"):
        load_policy(saved, language_model=other)


def test_the_prompt_is_vlm4vlas(qwen: Path) -> None:
    tokens = PretrainedTokens(qwen)
    text = tokens._tokenizer.decode([*tokens.before, *tokens.encode(" open the   drawer. ").ids])
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "\nWhat action should the robotic arm take to open the drawer?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_directories_that_are_no_language_model_are_refused(tmp_path: Path, policy: LoadedPolicy) -> None:
    with pytest.raises(CheckpointError, match="not a directory"):
        PretrainedTokens(tmp_path / "missing")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="model_type 'llama'; expected 'qwen2'"):
        PolicyNetwork(paper("full"), policy.shape, policy.tokens, tmp_path)
    with pytest.raises(CheckpointError, match="no .safetensors file"):
        language_model_hash(tmp_path)
    with pytest.raises(CheckpointError, match="no tokeniser"):
        PretrainedTokens(tmp_path)


def test_words_have_the_same_ids_whatever_the_order_of_the_data() -> None:
    a = WordTokens.of(["Open the drawer.", "lift the red cube"])
    b = WordTokens.of(["lift the red cube", "open the drawer"])
    assert a.words == b.words == ("cube", "drawer", "lift", "open", "red", "the")
    assert a.encode("OPEN the, drawer!") == b.encode("open the drawer")
    assert a.size == 8


def test_unknown_words_share_a_token_and_are_named_once() -> None:
    tokens = WordTokens.of(["open the drawer"])
    encoded = tokens.encode("open that that box")
    assert encoded.ids == (tokens.encode("open").ids[0], 1, 1, 1)
    assert encoded.unknown == ("that", "box")


def test_other_scripts_and_numbers_are_words() -> None:
    assert words_of("Öffne Schublade 2, bitte_schnell!") == ["öffne", "schublade", "2", "bitte", "schnell"]
    assert words_of("打开 抽屉") == ["打开", "抽屉"]


@pytest.mark.parametrize(
    "options",
    [{"hidden": 30, "heads": 4}, {"heads": 3, "hidden": 48, "kv_heads": 2}, {"train": "lora"}, {"layers": 0}],
)
def test_bad_language_configurations_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        LanguageConfig(**options)


def test_the_two_trunks_differ_in_what_passes_through_the_language_model(
    contract: Contract, backbone: OmniStream
) -> None:
    decoder = make_policy(contract, dataclasses.replace(CONFIG, trunk="decoder"), backbone)
    pooled = make_policy(contract, CONFIG, backbone)
    assert not len(decoder.network.pooling) and len(pooled.network.pooling) == 2
    with pytest.raises(ConfigError, match="expected one of paper_qwen2_5_7b, tabletop_tiny"):
        preset("tabletop_huge")
