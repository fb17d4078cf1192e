# SPDX-License-Identifier: Apache-2.0
"""Policies: what a frame sees, and that the slots hold exactly that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnistream.errors import ConfigError, StreamFull
from omnistream.stream.policy import parse_policy


@pytest.mark.parametrize("text", ["full", "full:8", "window:1", "window:16", "sink_window:1,15", "sink_window:3,2"])
def test_text_round_trip(text):
    assert str(parse_policy(text)) == text


@pytest.mark.parametrize(
    "text", ["", "window", "window:0", "window:-1", "full:0", "sink_window:1", "sink_window:1,0", "ring:4"]
)
def test_nonsense_is_refused_by_name(text):
    with pytest.raises(ConfigError, match="cache policy"):
        parse_policy(text)


def test_known_answers():
    assert [j for j in range(9) if parse_policy("window:3").sees(8, j)] == [6, 7, 8]
    assert [j for j in range(9) if parse_policy("sink_window:2,3").sees(8, j)] == [0, 1, 6, 7, 8]
    assert [j for j in range(4) if parse_policy("sink_window:2,3").sees(3, j)] == [0, 1, 2, 3]
    assert parse_policy("window:3").slots == 3
    assert parse_policy("sink_window:2,3").slots == 5
    assert [parse_policy("sink_window:1,2").slot(i) for i in range(6)] == [0, 1, 2, 1, 2, 1]


def test_full_is_full():
    policy = parse_policy("full:3")
    with pytest.raises(StreamFull, match="holds 3"):
        policy.slot(3)


@given(
    st.one_of(
        st.integers(1, 30).map("window:{}".format),
        st.tuples(st.integers(1, 5), st.integers(1, 20)).map(lambda sw: f"sink_window:{sw[0]},{sw[1]}"),
        st.just("full:60"),
    )
)
def test_slots_hold_exactly_what_a_frame_sees(text):
    policy = parse_policy(text)
    visible = policy.visibility(60)
    held: dict[int, int] = {}
    for frame in range(60):
        held[policy.slot(frame)] = frame
        assert sorted(held) == list(range(policy.filled(frame + 1)))
        assert sorted(held.values()) == [j for j in range(60) if policy.sees(frame, j)]
        assert visible[frame].nonzero().flatten().tolist() == sorted(held.values())
