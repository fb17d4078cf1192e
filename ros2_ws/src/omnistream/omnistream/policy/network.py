# SPDX-License-Identifier: Apache-2.0
"""The policy's network: visual tokens, words and state in; one chunk of normalised actions out. It has no memory: that
is the stream's, whose features it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from omnistream.errors import ConfigError
from omnistream.policy.action_head import ActionHead
from omnistream.policy.config import PolicyConfig, PolicyShape
from omnistream.policy.language_model import LORA_MARK, load_language_model, new_language_model
from omnistream.policy.pooling import ConditionedPooling
from omnistream.policy.tokens import Tokens

STATE_LIMIT = 5.0
"""Standard deviations to which proprioception is clipped: a sensor gone wild shall not reach the network as such."""


@dataclass(frozen=True)
class PolicyOutput:
    """Normalised actions."""

    arm: Tensor
    """[B, chunk, arm], -1 to 1."""
    gripper: Tensor
    """[B, chunk, grippers] logits; positive means open."""
    goal: Tensor | None = None
    """[B, keyframes, goal] the state expected there, in deviations from its mean; None for a policy without."""


class PolicyNetwork(nn.Module):
    """Sequence of the language model: prompt, visual tokens, instruction, [state], query. Causal; the query is last.

    `decoder`: the visual tokens are all patches, and the head reads the query alone. `pooled`: they are CLS and the
    mean patch of each camera; the query's state conditions the pooling, and the head reads query, CLS, places and
    state. CLS carries what happened earlier further than the patches do (docs/policy.md). Where a goal is predicted, a
    query per keyframe comes before and conditions the pooling in its stead; the head then reads the goals, and how far
    off they are, too.
    """

    visual_mean: Tensor
    visual_std: Tensor
    state_mean: Tensor
    state_std: Tensor
    before: Tensor

    def __init__(
        self,
        config: PolicyConfig,
        shape: PolicyShape,
        tokens: Tokens,
        language_model: str | Path | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        """language_model: the directory that `config.language.pretrained` needs. dtype: of its frozen weights."""
        super().__init__()
        self.config, self.shape = config, shape
        if config.language.pretrained:
            if language_model is None:
                raise ConfigError("this policy uses a pre-trained language model; name its directory (language_model)")
            self.llm = load_language_model(language_model, config.language, dtype)
        else:
            self.llm = new_language_model(config.language, tokens.size)
        width = int(self.llm.config.hidden_size)  # type: ignore[union-attr, arg-type]
        cameras, dim = len(shape.cameras), shape.feature_dim
        self.projector = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        self.camera_embedding = nn.Parameter(torch.zeros(cameras, 1, width))
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.state_in = (
            nn.Sequential(nn.Linear(shape.state, width), nn.ReLU(), nn.Linear(width, width)) if shape.state else None
        )
        inputs, asked = width, 1
        self.pooling = nn.ModuleList()
        if config.trunk == "pooled":
            self.pooling = nn.ModuleList(ConditionedPooling(dim, width, grid, config.pooling) for grid in shape.grids)
            places = cameras * config.pooling.heads * (config.pooling.values + 2)
            if config.goal:
                asked, goals = config.keyframes, len(shape.goal)
                self.keyframe_queries = nn.Parameter(torch.randn(1, asked, width) * 0.02)
                told = width + places + shape.state
                self.goal = nn.Sequential(nn.Linear(told, 2 * width), nn.ReLU(), nn.Linear(2 * width, goals))
                inputs += 2 * asked * goals
            inputs += shape.state + cameras * width + asked * places
        self.head = ActionHead(inputs, config.chunk, shape.arm, shape.grippers, config.head)
        # Statistics of the training data, so that inputs arrive at mean 0 and deviation 1; of CLS and of patches, since
        # CLS differs little from frame to frame, and what differs would drown in the patches' deviation. A deviation of
        # 0: that number of the state never moved there, and is not read.
        self.register_buffer("visual_mean", torch.zeros(cameras, 2, dim))
        self.register_buffer("visual_std", torch.ones(cameras, 2, dim))
        self.register_buffer("state_mean", torch.zeros(shape.state))
        self.register_buffer("state_std", torch.ones(shape.state))
        self.register_buffer("before", torch.tensor(tokens.before, dtype=torch.long), persistent=False)

    def forward(self, visual: Sequence[Tensor], words: Tensor, known: Tensor, state: Tensor | None) -> PolicyOutput:
        """
        visual: per camera [B, 1 + rows * columns, D]: CLS, then patches.
        words: [B, L] ids, padded anywhere; known: [B, L] bool, False on padding.
        state: [B, state], or None where the policy has none.
        """
        seen = [
            torch.cat([(tokens[:, :1].float() - mean[0]) / std[0], (tokens[:, 1:].float() - mean[1]) / std[1]], 1)
            for tokens, mean, std in zip(visual, self.visual_mean, self.visual_std, strict=True)
        ]
        if state is not None:
            state = in_deviations(state, self.state_mean, self.state_std).clamp(-STATE_LIMIT, STATE_LIMIT)
        *asked, answer = self._ask(seen, words, known, state).unbind(1)
        if not len(self.pooling):
            return PolicyOutput(*self.head(answer))
        looks = torch.stack(asked or [answer], 1)
        there = [pool(tokens[:, 1:], looks) for pool, tokens in zip(self.pooling, seen, strict=True)]
        read = [answer, *(self.projector(tokens[:, 0]) for tokens in seen), *(place.flatten(1) for place in there)]
        if state is None:
            return PolicyOutput(*self.head(torch.cat(read, -1)))
        if not self.config.goal:
            return PolicyOutput(*self.head(torch.cat([*read, state], -1)))
        goal = self.goal(torch.cat([looks, *there, state[:, None].expand(-1, looks.shape[1], -1)], -1))
        ahead = goal - state[:, None, list(self.shape.goal)]
        arm, gripper = self.head(torch.cat([*read, goal.flatten(1), ahead.flatten(1), state], -1))
        return PolicyOutput(arm, gripper, goal)

    def _ask(self, seen: list[Tensor], words: Tensor, known: Tensor, state: Tensor | None) -> Tensor:
        """The language model's state at the keyframes' queries, if there are any, and at the action's,
        [B, queries, width]."""
        batch = len(words)
        embed = self.llm.get_input_embeddings()  # type: ignore[operator]
        pictures = []
        for tokens, name in zip(seen, self.camera_embedding, strict=True):
            if len(self.pooling):
                chosen = torch.stack([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
            else:
                chosen = tokens[:, 1:]
            pictures.append(self.projector(chosen) + name)
        prompt = embed(self.before).expand(batch, -1, -1)
        parts = [prompt, *pictures, embed(words)]
        if self.state_in is not None:
            parts.append(self.state_in(state)[:, None])
        queries = [self.keyframe_queries, self.query] if self.config.goal else [self.query]
        parts += [query.expand(batch, -1, -1) for query in queries]
        dtype = prompt.dtype
        x = torch.cat([part.to(dtype) for part in parts], 1)
        first = prompt.shape[1] + sum(picture.shape[1] for picture in pictures)
        mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        mask[:, first : first + words.shape[1]] = known.long()
        # Positions count real tokens only: how far an instruction was padded must not matter.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self.llm(inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=False)
        return out.last_hidden_state[:, -sum(query.shape[1] for query in queries) :].float()

    def learnt(self) -> dict[str, Tensor]:
        """What a checkpoint stores: everything, except weights that are in the user's directory and did not change."""
        frozen = self.config.language.pretrained and self.config.language.train != "full"
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not (frozen and name.startswith("llm.") and LORA_MARK not in name)
        }


def in_deviations(state: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """`state` [..., S] less its mean, in deviations; 0 where the deviation is 0 (`PolicyNetwork.state_std`)."""
    return torch.where(std > 0, (state - mean) / std.clamp(min=torch.finfo(std.dtype).tiny), 0.0)
