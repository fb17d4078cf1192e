# SPDX-License-Identifier: Apache-2.0
"""What a clip says of its objects agrees with its pictures and motion."""

from __future__ import annotations

import pytest
import torch

from omnistream_sim.worlds import WorldConfig
from omnistream_sim.worlds.clips import Worlds
from omnistream_sim.worlds.materials import PALETTE


def test_things_agree_with_ids_words_and_motion() -> None:
    clip = Worlds(WorldConfig(moving=0.5, outdoor=0.0)).clips(
        range(100, 108), frames=3, size=(48, 48), rate=5.0, want=("ids", "scene_flow", "things", "text")
    )
    assert clip.ids is not None and clip.scene_flow is not None
    moving = coloured = 0
    for b, things in enumerate(clip.things):
        known = {thing.id: thing for thing in things}
        assert len(known) == len(things)
        shown = {int(i) for i in clip.ids[b].unique()}
        assert all(clip.names[b][i] == known[i].words for i in shown & set(known))
        assert not any(word in known[i].words for i in known for word in ("wall", "floor", "ceiling"))
        for i in shown & set(known):
            flow = clip.scene_flow[b][:-1][clip.ids[b][:-1] == i].norm(dim=-1)
            if known[i].moves:
                moving += 1
            elif len(flow):
                assert float(flow.max()) < 0.05  # below the threshold from picture to picture
            if known[i].colour is not None:
                coloured += 1
                assert known[i].colour in PALETTE and known[i].words.startswith(known[i].colour)
    assert moving > 3 and coloured > 10


@pytest.mark.parametrize("want", [("rgb",), ("things",)])
def test_things_come_only_when_asked_for(want: tuple[str, ...]) -> None:
    clip = Worlds().clips([5], frames=1, size=(32, 32), rate=5.0, want=want)
    assert bool(clip.things) == ("things" in want) and isinstance(clip.K, torch.Tensor)
