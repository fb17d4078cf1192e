# SPDX-License-Identifier: Apache-2.0
"""The native renderer is the torch renderer, compiled: both give the same pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from omnistream_sim.worlds import (
    QUALITIES,
    Material,
    Quality,
    SceneBuilder,
    WorldConfig,
    clip_seed,
    look_at,
    render,
    sample_scenes,
)
from omnistream_sim.worlds.native import NativeRenderer, NativeUnavailable, compiled, emit, gpu
from omnistream_sim.worlds.rendering import _best, renderer_for
from omnistream_sim.worlds.torch_renderer import TorchRenderer

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


SOFT = Quality(shadow_rays=2, ambient_rays=2, samples=2)


@needs_compiler
@pytest.mark.parametrize("size", [(64, 64), (37, 50)])
@pytest.mark.parametrize("quality", [QUALITIES["flat"], QUALITIES["fast"], SOFT])
def test_native_equals_torch(quality: Quality, size: tuple[int, int]) -> None:
    scenes = sample_scenes(WorldConfig(), [clip_seed(21, n) for n in range(12)], frames=2, rate=8.0)
    assert any(scenes.has_terrain) and not all(scenes.has_terrain)
    want = ("rgb", "depth", "normals", "ids")
    native, reference = (render(scenes, size, want=want, quality=quality, backend=b) for b in ("native", "torch"))
    assert native.rgb is not None and reference.rgb is not None
    assert native.depth is not None and reference.depth is not None
    assert native.ids is not None and reference.ids is not None
    assert native.normals is not None and reference.normals is not None
    same = native.ids == reference.ids
    assert same.float().mean() > 0.999  # a ray along an edge may go either way
    depth = (native.depth - reference.depth).abs() / reference.depth
    assert depth[same & torch.isfinite(reference.depth)].quantile(0.999) < 2e-4
    assert ((native.normals - reference.normals).norm(dim=-1)[same] < 0.01).float().mean() > 0.999
    levels = (native.rgb.int() - reference.rgb.int()).abs()
    assert (levels <= 2).float().mean() > 0.995
    assert levels.float().mean() < 0.2


@needs_compiler
def test_a_thread_per_pixel_gives_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form in which a GPU runs the text, here on the CPU: tiles of one pixel."""
    scenes = sample_scenes(WorldConfig(outdoor=1), [clip_seed(8, n) for n in range(6)], frames=2, rate=8.0)
    pictures = {}
    for side in (16, 1):
        monkeypatch.setattr(
            "omnistream_sim.worlds.rendering._best", lambda octaves, device, s=side: NativeRenderer(octaves, s)
        )
        pictures[side] = render(scenes, (30, 41), want=("rgb", "depth", "ids", "normals"), quality=SOFT)
    one, tiles = pictures[1], pictures[16]
    assert one.rgb is not None and tiles.rgb is not None and one.depth is not None and tiles.depth is not None
    assert one.ids is not None and tiles.ids is not None
    assert (one.ids == tiles.ids).float().mean() > 0.999
    assert torch.allclose(one.depth, tiles.depth, rtol=1e-4, equal_nan=True)
    levels = (one.rgb.int() - tiles.rgb.int()).abs()
    assert (levels <= 2).float().mean() > 0.995


def test_the_text_compiles_for_gpus() -> None:
    """Needs no GPU, only NVRTC, which comes with torch's CUDA builds."""
    try:
        gpu.load_nvrtc()
    except NativeUnavailable as error:
        pytest.skip(str(error))
    text = compiled.source(1, 1)
    assert all(len(gpu.compile_cubin(text, name)) > 10_000 for name in ("sm_80", "sm_90"))
    with pytest.raises(NativeUnavailable, match="error"):
        gpu.compile_cubin("this is not CUDA", "sm_90")


def test_without_a_compiler_torch_renders_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(octaves: int, device: str) -> NativeRenderer:
        raise NativeUnavailable("no C++ compiler")

    monkeypatch.setattr("omnistream_sim.worlds.rendering._compiled", fail)
    with pytest.warns(UserWarning, match="rendering with torch, which is many times slower: no C\\+\\+ compiler"):
        renderer = _best.__wrapped__(2, "cpu")
    assert isinstance(renderer, TorchRenderer)


@needs_compiler
def test_leaving_objects_out_changes_nothing() -> None:
    """Long objects, objects behind the camera, soft shadows: what a tile leaves out, it could not have met."""
    position = torch.tensor([[0.0, 0.0, 1.2]]).expand(2, 3)
    camera = look_at(position, torch.tensor([2.0, 0.5, 0.8]))
    room = SceneBuilder()
    for i in range(12):
        room.box((1.4, -1.8 + 0.3 * i, 0.9), (0.01, 0.02, 0.9), Material(colour="red"), turn=(0, 4 * i, 0))
        room.capsule((0.5, 0.4, 0.15 * i + 0.1), 0.02, 2.5, Material(colour="blue"), turn=(90, 0, 30 * i))
        room.revolution("sphere", (-1.0, -1.5 + 0.3 * i, 1.0), (0.2, 0.1, 0.3), Material(colour="green"))
    room.light((-1.5, 1.0, 2.4), (4, 4, 4), 0.4)
    scenes = room.build(camera, focal=0.6)
    quality = Quality(shadow_rays=4, ambient_rays=3)
    pictures = [render(scenes, (96, 128), frames=1, quality=quality, backend=b) for b in ("native", "torch")]
    assert pictures[0].rgb is not None and pictures[1].rgb is not None
    levels = (pictures[0].rgb.int() - pictures[1].rgb.int()).abs()
    assert (levels <= 2).float().mean() > 0.99 and levels.float().mean() < 0.3


def test_more_shadow_rays_make_softer_shadows(backend: str) -> None:
    """The edge of a shadow is a step with one ray, a slope with several."""
    camera = look_at(torch.tensor([[0.0, -2.0, 2.0]]).expand(2, 3), torch.tensor([0.0, 0.0, 0.0]))
    room = SceneBuilder(walls={"floor": Material(colour="grey", amount=0.0, gloss=0.0)})
    room.box((0, 0, 1.2), (0.3, 0.3, 0.02), Material(colour="white"))
    room.light((0, 0.8, 2.4), (3, 3, 3), 0.4)
    scenes = room.build(camera, focal=0.9, ambient=((0.1, 0.1, 0.1), (0.1, 0.1, 0.1)))

    def steepest(rays: int) -> float:
        quality = Quality(shadow_rays=rays)
        clip = render(scenes, (64, 64), frames=1, want=("rgb", "ids"), quality=quality, backend=backend)
        assert clip.rgb is not None and clip.ids is not None
        shade, floor = clip.rgb[0, 0, ..., 0].float(), clip.ids[0, 0] == 5
        step = (shade[:, 1:] - shade[:, :-1]).abs()[floor[:, 1:] & floor[:, :-1]]
        return float(step.quantile(0.998))

    assert steepest(1) > 30
    assert steepest(64) < 0.6 * steepest(1)


def test_a_texture_is_as_smooth_as_its_pixels(backend: str) -> None:
    """A fine checker far away averages out instead of flickering."""
    camera = look_at(torch.tensor([[0.0, 0.0, 1.5]]).expand(2, 3), torch.tensor([10.0, 0.0, 1.4]))
    fine = Material(colour="white", second="black", pattern="checker", repeat=(30, 30), amount=0.0)
    room = SceneBuilder(room_min=(-20, -20, 0), room_max=(20, 20, 4), walls={"right wall": fine})
    clip = render(room.build(camera, focal=0.9), (64, 64), frames=1, quality="flat", backend=backend)
    assert clip.rgb is not None
    wall = clip.rgb[0, 0, 30:33, 16:48].float()
    assert wall.std() < 3


def test_cxx_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(compiled.NativeUnavailable, match="no C\\+\\+ compiler 'no-such-compiler'"):
        compiled.load.__wrapped__(2)


@needs_compiler
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMNISTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled, "source", lambda octaves, side: "this is not C++")
    with pytest.raises(compiled.NativeUnavailable, match="error"):
        compiled.load.__wrapped__(2)
    assert not list(tmp_path.rglob("*.so"))


def test_backends_are_checked() -> None:
    with pytest.raises(ValueError, match="backend is 'gl'"):
        renderer_for(torch.device("cpu"), 2, "gl")


def test_what_has_no_c_form_is_refused_by_name() -> None:
    stage = emit.Stage("odd", lambda v: {"t": torch.erf(v["t"])}, rays=("t",))
    with pytest.raises(NotImplementedError, match="erf"):
        emit.emit(stage, {}, {})


def test_emitted_text_is_one_loop_of_declarations() -> None:
    stage = emit.Stage(
        "both",
        lambda v: {"t": torch.where(v["x"] > 0.5, v["t"] * v["gain"], v["x"])},
        rays=("x", "t"),
        arguments=("gain",),
    )
    text, outputs = emit.emit(stage, {}, {})
    assert outputs == ["t"]
    assert text.count("for (") == 1 and "tile.t[r] = where;" in text and "float gain" in text
