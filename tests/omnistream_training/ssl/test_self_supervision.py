# SPDX-License-Identifier: Apache-2.0
"""Views, masks, teacher and the whole task on a small backbone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from omnistream.errors import ConfigError
from omnistream.model.backbone import Backbone
from omnistream_training.ssl.config import SslConfig
from omnistream_training.ssl.masks import draw_masks, hidden_patches, image_mask, tube_mask
from omnistream_training.ssl.objective import SelfSupervision
from omnistream_training.ssl.teacher import Teacher, momentum_at, temperature_at
from omnistream_training.ssl.views import crop_box, jitter, make_views
from tests.omnistream_training.conftest import MICRO

TINY = SslConfig(
    images=4,
    clips=2,
    frames=3,
    source_size=(64, 64),
    global_size=48,
    local_size=32,
    prototypes=16,
    hidden=24,
    bottleneck=8,
)


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    config = dataclasses.replace(MICRO.backbone, layer_scale_init=1.0)
    return Backbone(config).train()


@pytest.mark.parametrize("count", [0, 1, 7, 30, 63])
def test_a_picture_has_exactly_as_many_masked_patches_as_asked(count: int, draw: torch.Generator) -> None:
    assert image_mask((8, 8), count, draw).sum() == count


def test_at_least_a_patch_of_a_clip_stays(draw: torch.Generator) -> None:
    masks = [tube_mask((2, 2), 8, 0.9, draw) for _ in range(20)]
    assert all(0 < mask.sum() < 4 for mask in masks)


def test_half_the_pictures_are_masked_by_shares_within_the_range(draw: torch.Generator) -> None:
    shares = draw_masks(TINY, 8, False, (10, 10), draw).float().mean((-1, -2)).flatten()
    assert (shares > 0).sum() == 8
    assert shares[shares > 0].min() >= 0.1 and shares.max() <= 0.5


def test_a_tube_covers_about_what_v_jepa_masks(draw: torch.Generator) -> None:
    shares = draw_masks(TINY, 200, True, (14, 14), draw).float().mean((1, 2, 3))
    assert shares[0] == pytest.approx(0.7, abs=0.1) and shares[1] == pytest.approx(0.85, abs=0.1)


def test_the_backbone_does_not_see_what_is_masked_and_sees_the_rest(backbone: Backbone, draw: torch.Generator) -> None:
    clip = torch.randn(2, 3, 3, 32, 32, generator=draw)
    mask = torch.tensor([[True, False, False, False], [False, False, True, True]])
    other = clip.clone()
    other[0, :, :, :16, :16] += 1  # patch 0 of the first clip, in every frame
    with hidden_patches(backbone, mask, 3):
        a, b = backbone(clip), backbone(other)
        other[1, 0, 0, 0, 0] += 1  # patch 0 of the second clip: not masked
        c = backbone(other)
    assert torch.equal(a.patches, b.patches)
    assert not torch.equal(b.patches[1], c.patches[1]) and torch.equal(b.patches[0], c.patches[0])
    assert not torch.equal(backbone(clip).patches, a.patches), "the mask must be gone outside"


def test_a_mask_for_other_clips_is_refused(backbone: Backbone) -> None:
    with (
        hidden_patches(backbone, torch.zeros(1, 4, dtype=torch.bool), 1),
        pytest.raises(ConfigError, match=r"\(1, 4\)"),
    ):
        backbone(torch.zeros(2, 1, 3, 32, 32))


def test_views_cut_mirror_and_tint_all_frames_alike(draw: torch.Generator) -> None:
    still = torch.rand(2, 1, 3, 64, 64, generator=draw).expand(-1, 3, -1, -1, -1)
    views = make_views(still, torch.arange(3.0).expand(2, 3), TINY, 16, draw)
    assert views.large.shape == (2, 2, 3, 3, 48, 48) and views.small.shape == (2, 2, 3, 3, 32, 32)
    assert views.masks.shape == (2, 2, 3, 3) and views.masks.dtype == torch.bool
    for part in (views.large, views.small):
        torch.testing.assert_close(part, part[:, :, :1].expand_as(part))
        assert part.min() >= 0 and part.max() <= 1
    assert not torch.equal(views.large[0], views.large[1])


def test_views_are_a_function_of_the_draw(draw: torch.Generator) -> None:
    images = torch.rand(1, 2, 3, 64, 64, generator=draw)
    one, two = (
        make_views(images, torch.zeros(1, 2), TINY, 16, torch.Generator().manual_seed(5)).state() for _ in range(2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_crop_covers_the_share_that_is_asked_for_and_lies_inside() -> None:
    for u in torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).tolist():
        top, left, h, w = crop_box((100, 160), (0.1, 0.3), u)
        assert 0.095 < h * w / 16000 < 0.305 and 0 <= top <= 100 - h and 0 <= left <= 160 - w
    assert crop_box((100, 160), (1.0, 1.0), [0.5] * 4)[2] == 100


def test_hue_leaves_grey_alone_and_nothing_changes_nothing(draw: torch.Generator) -> None:
    grey = torch.rand(1, 1, 8, 8, generator=draw).expand(-1, 3, -1, -1)
    torch.testing.assert_close(jitter(grey, 0, 0, 0, 1.0), grey)
    picture = torch.rand(1, 3, 8, 8, generator=draw)
    torch.testing.assert_close(jitter(picture, 0, 0, 0, 0), picture)


def test_the_teacher_is_an_average_and_stays_in_evaluation_mode() -> None:
    student = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(student.weight, 1.0)
    teacher = Teacher(part=student)
    torch.nn.init.constant_(student.weight, 5.0)
    teacher.train().follow(0.75, part=student)
    assert teacher.part.weight.item() == 2.0  # 0.75 * 1 + 0.25 * 5
    assert not teacher.part.training and not teacher.part.weight.requires_grad


def test_schedules_begin_and_end_where_they_say() -> None:
    config = dataclasses.replace(TINY, momentum=(0.9, 1.0), temperature_steps=10)
    assert [round(momentum_at(step, 100, config), 6) for step in (0, 50, 100)] == [0.9, 0.95, 1.0]
    assert [round(temperature_at(step, config), 6) for step in (0, 5, 10, 99)] == [0.04, 0.055, 0.07, 0.07]


@pytest.mark.parametrize("frames", [1, 3], ids=["pictures", "clips"])
def test_gradients_reach_the_student_and_nobody_else(backbone: Backbone, draw: torch.Generator, frames: int) -> None:
    task = SelfSupervision(MICRO, TINY, backbone)
    views = make_views(torch.rand(4, frames, 3, 64, 64, generator=draw), torch.zeros(4, frames), TINY, 16, draw)
    loss, terms = task.loss(backbone, views, 0.05, stretch=1.5)
    assert set(terms) == {"dino", "ibot", "koleo", "gram"} and loss.isfinite()
    expected = terms["dino"] + terms["ibot"] + 0.1 * terms["koleo"] + terms["gram"]
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    used = ("patch_embed", "mask_token", "cls_token", "register_token", "blocks.0", "blocks.3", "norm")
    for name in used:
        grads = [p.grad for n, p in backbone.named_parameters() if n.startswith(name)]
        assert grads and all(g is not None and g.abs().sum() > 0 for g in grads), name
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.heads.parameters())
    assert task.anchor is not None
    assert all(p.grad is None for p in (*task.teacher.parameters(), *task.anchor.parameters()))
    task.hold_prototypes()
    assert all(head.prototypes.weight.grad is None for head in task.heads.values())


def test_at_the_beginning_only_the_mask_stands_between_student_and_anchor(
    backbone: Backbone, draw: torch.Generator
) -> None:
    config = dataclasses.replace(TINY, mask_probability=0.0)
    task = SelfSupervision(MICRO, config, backbone)
    views = make_views(torch.rand(2, 1, 3, 64, 64, generator=draw), torch.zeros(2, 1), config, 16, draw)
    _, terms = task.loss(backbone, views, 0.05)
    assert terms["gram"] == pytest.approx(0, abs=1e-10) and terms["ibot"] == 0


def test_the_clip_is_compared_by_the_mean_of_its_frames(backbone: Backbone, draw: torch.Generator) -> None:
    """Without masks, small crops and spreading, one clip of still frames of equal views: by hand from the backbone."""
    config = dataclasses.replace(TINY, local_crops=0, ibot=0.0, koleo=0.0, gram=0.0)
    task = SelfSupervision(MICRO, config, backbone)
    views = make_views(torch.rand(1, 3, 3, 64, 64, generator=draw), torch.arange(3.0)[None], config, 16, draw)
    views = dataclasses.replace(views, masks=torch.zeros_like(views.masks))
    loss, _ = task.loss(backbone, views, 0.05)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MICRO.mean, MICRO.std))
    cls = backbone((views.large[:, 0] - mean) / std, camera_token=True).cls.mean(1)
    scores = task.heads["dino"](cls)
    from omnistream_training.ssl.losses import sinkhorn

    targets = sinkhorn(scores, 0.05)
    log_p = (scores / 0.1).log_softmax(-1)
    torch.testing.assert_close(loss, -(targets.flip(0) * log_p).sum(-1).mean())


def test_sizes_that_are_no_multiple_of_the_patch_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="local_size is 40"):
        SelfSupervision(MICRO, dataclasses.replace(TINY, local_size=40), backbone)
