# SPDX-License-Identifier: Apache-2.0
"""Alignment is causal, knows ages, and does not depend on the order of equal stamps or on small delays."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnistream.errors import InputError
from omnistream.sync import (
    ActionPairer,
    Aligner,
    Begin,
    Cutter,
    End,
    Gap,
    History,
    Observation,
    Step,
    Stream,
    Ticker,
    first_index,
    newest_index,
    read_fields,
)
from omnistream.sync.actions import Command

MS = 1_000_000


@given(st.lists(st.integers(0, 1000)).map(sorted), st.integers(0, 1000), st.integers(0, 100))
def test_choosing_an_index(stamps, at, limit):
    newest = newest_index(stamps, at, limit)
    allowed = [s for s in stamps if at - limit <= s <= at]
    assert (stamps[newest] == max(allowed)) if allowed else newest == -1
    first = first_index(stamps, at, limit)
    allowed = [s for s in stamps if at <= s <= at + limit]
    assert (stamps[first] == min(allowed)) if allowed else first == -1


def test_history_sorts_what_comes_late_and_refuses_what_comes_twice():
    history = History(3)
    assert [history.add(stamp, str(stamp)) for stamp in (10, 30, 20, 30, 40)] == [True, True, True, False, True]
    assert history.before(25) == (20, "20")
    assert history.before(45, max_age=4) is None
    assert history.after(31) == (40, "40")
    assert history.before(15) is None  # 10 was dropped: three are kept


def test_ticks_are_every_third_picture_and_do_not_drift():
    ticker = Ticker(100 * MS)
    stamps = [round(i * 1e9 / 30) for i in range(300)]
    assert [i for i, stamp in enumerate(stamps) if ticker.offer(stamp)] == list(range(0, 300, 3))


def test_ticks_stand_jitter_and_start_anew_after_a_gap():
    generator = random.Random(0)
    stamps = [round(i * 1e9 / 30 + generator.uniform(-3e6, 3e6)) for i in range(300)]
    ticker = Ticker(round(1e9 / 30))
    assert sum(ticker.offer(stamp) for stamp in stamps) == 300
    assert not ticker.offer(stamps[-1])
    later = stamps[-1] + 10**9
    assert ticker.offer(later)
    assert ticker.is_gap(stamps[-1], later)
    assert not ticker.is_gap(stamps[-2], stamps[-1])


def aligner(patience: int = 20 * MS, max_age: int | None = 100 * MS) -> Aligner:
    return Aligner([Stream("camera", None), Stream("joints", max_age)], "camera", 100 * MS, patience)


def test_equal_stamps_belong_together_in_any_order():
    for order in (("camera", "joints"), ("joints", "camera")):
        under_test = aligner()
        found = []
        for t in range(5):
            for stream in order:
                found += under_test.add(stream, t * 100 * MS, (stream, t), t * 100 * MS)
        found += under_test.flush()
        assert [o.values for o in found] == [{"camera": ("camera", t), "joints": ("joints", t)} for t in range(5)]
        assert all(o.ages == {"camera": 0, "joints": 0} for o in found)


def test_nothing_after_the_tick_is_used_and_old_values_are_refused():
    under_test = aligner()
    list(under_test.add("joints", 0, "old", 0))
    (first,) = [*under_test.add("camera", 50 * MS, "a", 50 * MS), *under_test.add("joints", 51 * MS, "new", 51 * MS)]
    assert isinstance(first, Observation) and first.values["joints"] == "old" and first.ages["joints"] == 50 * MS
    list(under_test.add("camera", 400 * MS, "b", 400 * MS))
    (second,) = under_test.poll(421 * MS)
    assert isinstance(second, Gap) and second.reason == "joints is 0.349 s old; at most 0.100 s"


def test_before_the_first_message_there_is_a_gap():
    under_test = aligner()
    list(under_test.add("camera", 0, "a", 0))
    (gap,) = under_test.flush()
    assert gap == Gap(0, "nothing on joints yet")


@given(st.integers(0, 2**32 - 1))
def test_what_arrives_within_patience_gives_the_same_as_in_order(seed):
    """Streams overtake each other, as they do on a network; each by itself stays in order."""
    generator = random.Random(seed)
    delayed, latest = [], {"camera": 0, "joints": 0}
    for t in range(200):
        for stream, stamp in (("camera", t * 10 * MS), ("joints", t * 10 * MS + 3 * MS)):
            if stream == "joints" or t % 10 == 0:
                latest[stream] = max(latest[stream] + 1, stamp + generator.randrange(15 * MS))
                delayed.append((latest[stream], stamp, stream))
    under_test, found = aligner(patience=16 * MS), []
    for arrival, stamp, stream in sorted(delayed):
        found += under_test.add(stream, stamp, stamp, arrival)
    found += under_test.flush()
    assert [o.stamp for o in found] == [t * 100 * MS for t in range(20)]
    assert isinstance(found[0], Gap)
    assert all(o.values["joints"] == o.stamp - 7 * MS for o in found[1:])


def observation(stamp: int) -> Observation:
    return Observation(stamp, stamp, {"x": stamp}, {"x": 0})


def test_commands_next_and_hold():
    """Both are what was commanded on seeing the picture: what came before it is an answer to another one."""
    commands = [Command("arm", "next", 50 * MS), Command("gripper", "hold", None)]
    pairer = ActionPairer(commands, 40 * MS, is_gap=lambda before, after: after - before > 60 * MS)
    found = list(pairer.command("gripper", 5 * MS, "open"))
    found += pairer.observe(observation(10 * MS))
    found += pairer.command("arm", 9 * MS, "before")
    found += pairer.command("arm", 12 * MS, "after")
    found += pairer.command("gripper", 14 * MS, "closed")
    found += pairer.command("gripper", 49 * MS, "open")  # of the next picture, which comes early
    assert found == []  # who knows when that will be
    found += pairer.observe(observation(48 * MS))
    assert [step.commands for step in found] == [{"arm": "after", "gripper": "closed"}]
    found = [*pairer.observe(observation(200 * MS)), *pairer.command("arm", 50 * MS, "later"), *pairer.poll(130 * MS)]
    assert [step.commands for step in found] == [{"arm": "later", "gripper": "open"}]  # a gap follows
    assert [*pairer.poll(251 * MS)] == [Gap(200 * MS, "no command on arm within 0.050 s", idle=True)]


def test_what_holds_may_be_as_old_as_is_said_at_the_tick():
    pairer = ActionPairer([Command("gripper", "hold", 30 * MS)], 10 * MS)
    found = [*pairer.command("gripper", 0, "open")]
    for tick in range(0, 60 * MS, 10 * MS):
        found += pairer.observe(observation(tick))
    found += pairer.flush()
    assert [type(item).__name__ for item in found] == ["Step"] * 4 + ["Gap"] * 2


@pytest.mark.parametrize("late", [5 * MS, 30 * MS])
def test_a_command_is_waited_for_as_long_as_a_state(late):
    """Commands with the stamp of a tick, or within their age after it, that arrive after its picture."""
    commands = [Command("gripper", "hold", None), Command("arm", "next", 50 * MS)]
    pairer = ActionPairer(commands, 50 * MS, patience=20 * MS)
    found = list(pairer.command("gripper", 0, "open"))
    found += [*pairer.observe(observation(100 * MS)), *pairer.poll((100 + 50) * MS + late)]
    found += pairer.command("gripper", 100 * MS, "closed")
    found += pairer.command("arm", 149 * MS, "moves")
    found += pairer.flush()
    if late < 20 * MS:
        assert [step.commands for step in found] == [{"gripper": "closed", "arm": "moves"}]
    else:
        assert found == [Gap(100 * MS, "no command on arm within 0.050 s", idle=True)]


def test_hold_does_not_outlive_its_age():
    for age, expected in ((100 * MS, {"gripper": "open"}), (101 * MS, None)):
        pairer = ActionPairer([Command("gripper", "hold", 100 * MS)], 1)
        found = [*pairer.command("gripper", 0, "open"), *pairer.observe(observation(age)), *pairer.flush()]
        assert [item.commands if isinstance(item, Step) else None for item in found] == [expected]


def test_a_difference_needs_the_next_observation_and_no_gap_between():
    pairer = ActionPairer([], 100, wants_next=True, is_gap=lambda before, after: after - before > 100)
    found = [*pairer.observe(observation(0)), *pairer.observe(observation(100)), *pairer.observe(observation(300))]
    found += pairer.flush()
    assert [(type(item).__name__, item.next.stamp if isinstance(item, Step) else item.stamp) for item in found] == [
        ("Step", 100),
        ("Gap", 100),
        ("Gap", 300),
    ]


def cut(cutter: Cutter, *items: Step | Gap) -> list[str]:
    found = [*(out for item in items for out in cutter.take(item)), *cutter.flush()]
    words = []
    for out in found:
        if isinstance(out, Begin):
            words.append(f"begin {out.instruction}")
        elif isinstance(out, End):
            words.append(f"end {out.reason} {out.success}{' discard' if out.discard else ''}")
        else:
            words.append(str(out.observation.stamp))
    return words


def step(stamp: int) -> Step:
    return Step(observation(stamp), {})


def is_gap(before: int, after: int) -> bool:
    return after - before > 15


def test_marks_cut_episodes():
    cutter = Cutter(marked=True, instruction="", is_gap=is_gap)
    cutter.instruct(9, "lift")
    cutter.mark(10, "start")
    cutter.mark(30, "Success")
    cutter.mark(40, "start")
    cutter.mark(55, "discard")
    words = cut(cutter, *(step(t) for t in (0, 10, 20, 30, 40, 50, 60)))
    assert words == [
        "begin lift",
        "10",
        "20",
        "30",
        "end success True",
        "begin lift",
        "40",
        "50",
        "end discard None discard",
    ]


def test_gaps_and_new_instructions_split():
    cutter = Cutter(marked=False, instruction="a", is_gap=is_gap)
    cutter.instruct(25, "b")
    words = cut(cutter, step(0), step(10), step(20), step(30), Gap(40, "no picture"), step(50), step(90))
    ends = ["end a new instruction None", "end no picture None", "end 0.000 s without a tick None"]
    assert words[:4] == ["begin a", "0", "10", "20"]
    assert [word for word in words if word.startswith("end")][:3] == ends
    assert [word for word in words if word.startswith("begin")] == ["begin a", "begin b", "begin b", "begin b"]


def test_a_verdict_after_idle_ticks_is_about_the_steps_before_them():
    cutter = Cutter(marked=True, instruction="", is_gap=is_gap)
    for stamp, word in ((0, "start"), (35, "success"), (40, "start"), (75, "success"), (80, "start")):
        cutter.mark(stamp, word)
    quiet, blind = Gap(20, "no command", idle=True), Gap(60, "no picture")
    still = [Gap(t, "no command", idle=True) for t in (100, 110)]
    words = cut(cutter, step(0), step(10), quiet, step(40), step(50), blind, step(80), step(90), *still, step(120))
    assert [word for word in words if word.startswith("end")] == [
        "end success True",  # the operator let go, then judged
        "end no picture None",  # what was not seen is not judged
        "end no command None",  # let go, and went on
        "end end of the recording None",
    ]


def test_an_unknown_mark_is_refused():
    with pytest.raises(InputError, match="episode mark is 'go'; expected one of start"):
        Cutter(marked=True, instruction="", is_gap=is_gap).mark(0, "go")


def joint_state(**values):
    return SimpleNamespace(name=list(values), position=list(values.values()), velocity=[], effort=[])


def test_joints_are_found_by_name():
    assert read_fields(joint_state(b=2.0, a=1.0), ["a", "b"]).tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match="no joint 'c'; it has b, a"):
        read_fields(joint_state(b=2.0, a=1.0), ["c"])
    with pytest.raises(InputError, match="0 of velocity for 2 joints"):
        read_fields(joint_state(b=2.0, a=1.0), ["a"], "velocity")
    with pytest.raises(InputError, match="finite"):
        read_fields(joint_state(a=float("nan")), ["a"])
    trajectory = SimpleNamespace(joint_names=["a", "b"], points=[SimpleNamespace(positions=[3.0, 4.0])])
    assert read_fields(trajectory, ["b"]).tolist() == [4.0]
    with pytest.raises(InputError, match="no points"):
        read_fields(SimpleNamespace(joint_names=["a"], points=[]), ["a"])


def vector(x: float, y: float, z: float, **more: float) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y, z=z, **more)


def test_poses_and_twists_in_any_cover():
    half = np.sqrt(0.5)
    pose = SimpleNamespace(position=vector(1.0, 2.0, 3.0), orientation=vector(0.0, 0.0, -half, w=-half))
    twist = SimpleNamespace(linear=vector(4.0, 5.0, 6.0), angular=vector(7.0, 8.0, 9.0))
    odometry = SimpleNamespace(
        header=None,
        child_frame_id="base",
        pose=SimpleNamespace(pose=pose, covariance=[]),
        twist=SimpleNamespace(twist=twist, covariance=[]),
    )
    for message in (pose, SimpleNamespace(header=None, pose=pose), odometry):
        np.testing.assert_allclose(read_fields(message, ["x", "yaw", "qz", "qw"]), [1, np.pi / 2, half, half])
    for message in (twist, SimpleNamespace(header=None, twist=twist), odometry):
        assert read_fields(message, ["vz", "wx"]).tolist() == [6.0, 7.0]
    with pytest.raises(InputError, match="no field 'vx'; it has x, y, z"):
        read_fields(pose, ["vx"])
    pose.orientation = vector(0.0, 0.0, 0.0, w=0.0)
    with pytest.raises(InputError, match="expected a unit quaternion"):
        read_fields(pose, ["x"])


def test_arrays_and_single_numbers():
    assert read_fields(SimpleNamespace(data=np.array([1.0, 2.0])), ["1"]).tolist() == [2.0]
    assert read_fields(SimpleNamespace(data=True), ["value"]).tolist() == [1.0]
    assert read_fields(SimpleNamespace(position=0.04, max_effort=10.0), ["position"]).tolist() == [0.04]
    command = SimpleNamespace(command=SimpleNamespace(position=0.04, max_effort=10.0))
    assert read_fields(command, ["max_effort"]).tolist() == [10.0]
    with pytest.raises(InputError, match="no field '2'"):
        read_fields(SimpleNamespace(data=[1.0, 2.0]), ["2"])
    with pytest.raises(InputError, match="holds text"):
        read_fields(SimpleNamespace(data="open"), ["value"])
