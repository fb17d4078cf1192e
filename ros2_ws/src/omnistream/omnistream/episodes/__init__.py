# SPDX-License-Identifier: Apache-2.0
"""Episodes of a robot: read one after the other, each with states, actions, an instruction and lazy pictures.

dataset = open_dataset("my_set")                    # a folder in LeRobot's format, v3 or v2.1
dataset.contract                                    # what the numbers mean (omnistream.contract)
for episode in dataset:                             # or dataset[3], len(dataset)
    episode.state, episode.action                   # f32 [T, S], f32 [T, A]
    for image in episode.frames("front"):           # u8 [H, W, 3] RGB, decoded as they are asked for
        ...

with EpisodeWriter("new_set", contract, storage="image") as writer:      # or "jpeg", "video"
    writer.begin("lift the red cube")
    writer.add(state, action, {"front": image}, stamp=0.0)               # once per control period
    writer.end(success=True)                                             # or writer.discard()
"""

from omnistream.episodes.dataset import Episode, EpisodeDataset, EpisodeInfo
from omnistream.episodes.lerobot_reader import open_dataset
from omnistream.episodes.lerobot_writer import EpisodeWriter, write_episode

__all__ = ["Episode", "EpisodeDataset", "EpisodeInfo", "EpisodeWriter", "open_dataset", "write_episode"]
