# SPDX-License-Identifier: Apache-2.0
"""The caption loss against likelihoods computed by hand, and where its gradients go."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.backbone import Backbone
from omnistream_training.caption.captioner import Captioner
from omnistream_training.caption.config import CaptionConfig, DecoderConfig
from omnistream_training.caption.questions import Question
from omnistream_training.caption.tokens import ByteTokens
from tests.omnistream_training.conftest import MICRO

pytest.importorskip("transformers")

SMALL = CaptionConfig(decoder=DecoderConfig(dim=16, depth=2, heads=2, key_heads=1, mlp=24))
PATCHES = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))


def question(ask: str, answer: str, kind: str = "describe") -> Question:
    return Question(kind, ask, answer)


@pytest.fixture
def captioner() -> Captioner:
    torch.manual_seed(0)
    return Captioner(32, SMALL)


@pytest.fixture
def bigrams() -> Captioner:
    """A decoder that looks at nothing but the token before: P(a | newline) = 1/2, P(b | a) = 1/4, P(end | b) = 1/8."""
    sizes = DecoderConfig(dim=4, depth=1, heads=1, key_heads=1, mlp=4)
    captioner = Captioner(32, dataclasses.replace(SMALL, decoder=sizes))
    decoder = captioner.decoder
    with torch.no_grad():
        for layer in decoder.model.layers:  # the layers add nothing: the state of a token is its embedding
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding = decoder.get_input_embeddings().weight
        embedding.zero_()
        for place, token in enumerate("\nab"):
            embedding[ord(token), place] = 1.0
        # The last norm makes a unit vector of four numbers twice as long.
        scores = torch.full((257, 4), -1e4)
        table = {0: {"a": 1 / 2, "b": 1 / 2}, 1: {"b": 1 / 4, "a": 3 / 4}, 2: {"end": 1 / 8, "a": 7 / 8}}
        for place, row in table.items():
            for token, probability in row.items():
                scores[256 if token == "end" else ord(token), place] = math.log(probability) / 2
    decoder.lm_head.weight = nn.Parameter(scores)
    return captioner


def test_the_likelihood_of_a_caption_by_hand(bigrams: Captioner) -> None:
    """ "ab" has the likelihood 1/2 * 1/4 * 1/8 = 1/64 in three tokens."""
    loss, terms = bigrams.loss(PATCHES[:1], [question("?", "ab")])
    assert loss.item() == pytest.approx(math.log(64) / 3, abs=1e-5)
    assert terms["describe"].item() == pytest.approx(loss.item())


def test_a_longer_neighbour_changes_no_likelihood_and_every_token_counts_once(bigrams: Captioner) -> None:
    """ "aab": 1/2 * 3/4 * 1/4 * 1/8. Seven tokens together; padding and questions count for nothing."""
    both = [question("?", "ab"), question("A longer question?", "aab", "read")]
    loss, terms = bigrams.loss(PATCHES, both)
    expected = (math.log(64) - math.log(3 / 256)) / 7
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert terms["describe"].item() == pytest.approx(math.log(64) / 3, abs=1e-5)
    assert terms["read"].item() == pytest.approx(-math.log(3 / 256) / 4, abs=1e-5)


def test_a_decoder_that_knows_nothing_pays_the_logarithm_of_its_vocabulary(captioner: Captioner) -> None:
    captioner.decoder.lm_head.weight = nn.Parameter(torch.zeros(257, 16))
    loss, _ = captioner.loss(PATCHES[:1], [question("Where?", "1 2 3 4")])
    assert loss.item() == pytest.approx(math.log(257), abs=1e-5)


def test_an_answer_sees_its_picture_and_what_was_said_before_and_nothing_else(captioner: Captioner) -> None:
    asked = [question("Where?", "1 2 3"), question("What?", "a fox")]

    def logits(patches: Tensor, questions: list[Question]) -> Tensor:
        scores, _, rows = captioner._predict(patches, questions)
        return scores[rows == 0]

    before = logits(PATCHES, asked)
    other = PATCHES.clone()
    other[1] += 1
    torch.testing.assert_close(logits(other, [asked[0], question("What else?", "a very long answer")]), before)
    later = logits(PATCHES, [question("Where?", "1 2 9"), asked[1]])
    torch.testing.assert_close(later[:5], before[:5])  # the fifth predicts the 9, and has not read it
    assert not torch.allclose(later[5], before[5])
    other = PATCHES.clone()
    other[0] += 1
    assert not torch.allclose(logits(other, asked), before)


def test_gradients_flow_through_the_decoder_into_the_backbone(captioner: Captioner) -> None:
    torch.manual_seed(0)
    backbone = Backbone(dataclasses.replace(MICRO.backbone, layer_scale_init=1.0))
    patches = backbone(torch.randn(2, 1, 3, 32, 32), camera_token=True).patches[:, 0]
    loss, _ = captioner.loss(patches, [question("Where?", "1"), question("What?", "2")])
    loss.backward()
    for part in (backbone.patch_embed, backbone.blocks, captioner.projector, captioner.decoder):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_it_learns_to_say_what_it_sees(captioner: Captioner) -> None:
    """Two pictures, two answers, told apart by the patches alone."""
    asked = [question("What?", "fox"), question("What?", "hen")]
    optimiser = torch.optim.Adam(captioner.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        captioner.loss(PATCHES, asked)[0].backward()
        optimiser.step()
    assert captioner.answer(PATCHES, "What?", 8) == ["fox", "hen"]


def test_a_long_answer_is_cut_without_an_end_and_counted(captioner: Captioner) -> None:
    captioner.config = dataclasses.replace(SMALL, max_tokens=12)
    _, targets, _ = captioner._predict(PATCHES[:1], [question("Why?", "because it is so")])
    assert captioner.tokens.decode(targets.tolist()) == "becaus" and captioner.cut == 1
    assert captioner.tokens.end not in targets  # it goes on, and nobody learns that it does not
    _, targets, _ = captioner._predict(PATCHES[:1], [question("Why?", "becaus")])  # just fits
    assert targets[-1] == captioner.tokens.end and captioner.cut == 1


def test_bytes_come_back() -> None:
    tokens = ByteTokens()
    assert tokens.decode([*tokens.encode("Tür 3"), tokens.end, 7]) == "Tür 3"
    assert max(tokens.encode("Tür 3")) < tokens.end < tokens.size


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a directory"):
        Captioner(32, dataclasses.replace(SMALL, language_model=str(tmp_path / "none")))
    with pytest.raises(CheckpointError, match="no tokeniser"):
        Captioner(32, dataclasses.replace(SMALL, language_model=str(tmp_path)))


def test_a_directory_of_qwen3_is_read_with_its_tokeniser(tmp_path: Path, captioner: Captioner) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<end>": 0, "What?": 1, "fox": 2}, unk_token="<end>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(tmp_path)
    captioner.decoder.save_pretrained(tmp_path)
    read = Captioner(32, dataclasses.replace(SMALL, language_model=str(tmp_path)))
    assert (read.tokens.size, read.tokens.end) == (3, 0)
    for mine, theirs in zip(captioner.decoder.parameters(), read.decoder.parameters(), strict=True):
        assert torch.equal(mine, theirs) and theirs.requires_grad
    _, targets, _ = read._predict(PATCHES[:1], [question("What?", "fox fox")])
    assert targets.tolist() == [2, 2, 0]


def test_sizes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads 4"):
        DecoderConfig(dim=20, heads=4)
