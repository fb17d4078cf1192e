# SPDX-License-Identifier: Apache-2.0
"""What a tabletop clip says of its things agrees with its pictures."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream_sim.tabletop.clips import open_clips


def test_ids_colours_and_motion() -> None:
    renderer = open_clips(arm=1.0, moving=1.0, carried=1.0, shadow=0.0)
    try:
        clip = renderer.clips(range(6), frames=3, size=(96, 96), rate=5.0, want=("rgb", "depth", "ids", "things"))
        plain = renderer.clips(range(6), frames=3, size=(96, 96), rate=5.0)
    finally:
        renderer.close()
    assert plain.ids is None and plain.things == () and bool((plain.rgb == clip.rgb).all())
    assert clip.ids is not None and clip.rgb is not None and clip.depth is not None
    seen, carried = 0, 0
    for b, things in enumerate(clip.things):
        known = {thing.words: thing for thing in things}
        assert len({thing.id for thing in things}) == len(things)
        assert {"drawer", "slider", "button", "Panda", "red block"} <= set(known)
        carried += sum(thing.moves for words, thing in known.items() if words.endswith("block"))
        ids, rgb = clip.ids[b].numpy(), clip.rgb[b].numpy().astype(int)
        for name, strongest in (("red", 0), ("blue", 2)):
            mask = ids == known[f"{name} block"].id
            if mask.sum() > 30:
                seen += 1
                assert known[f"{name} block"].colour == name
                assert np.median(rgb[mask], axis=0).argmax() == strongest
                spread = clip.depth[b].numpy()[mask]
                assert np.isfinite(spread).all()
    assert seen >= 2 and 1 <= carried <= 6  # one block per clip moves, with an arm that moves


def test_what_nobody_knows_is_refused() -> None:
    renderer = open_clips()
    try:
        with pytest.raises(ValueError, match="expected some of rgb, depth, text, ids, things"):
            renderer.clips([0], frames=1, size=(32, 32), rate=5.0, want=("normals",))
    finally:
        renderer.close()
