# SPDX-License-Identifier: Apache-2.0
"""The terms of self-supervision against answers that are known beforehand."""

from __future__ import annotations

import math

import pytest
import torch

from omnistream.errors import ConfigError
from omnistream_training.ssl.head import ProjectionHead
from omnistream_training.ssl.losses import dino_loss, gram_loss, ibot_loss, koleo_loss, sinkhorn


def test_sinkhorn_is_doubly_stochastic() -> None:
    logits = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    q = sinkhorn(logits, 0.5, iterations=50)
    torch.testing.assert_close(q.sum(1), torch.ones(24))
    torch.testing.assert_close(q.sum(0), torch.full((6,), 24 / 6), rtol=1e-4, atol=1e-4)


def test_sinkhorn_of_one_prototype_for_all_spreads_them_evenly() -> None:
    """The collapse that it is there to prevent: every sample prefers prototype 0 by as much."""
    logits = torch.zeros(8, 4)
    logits[:, 0] = 10.0
    torch.testing.assert_close(sinkhorn(logits, 0.05), torch.full((8, 4), 0.25))


def test_sinkhorn_by_hand() -> None:
    """Columns [3, 1] and [1, 3] to 1, which leaves rows that sum to 1 already."""
    q = sinkhorn(torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log(), 1.0, iterations=1)
    torch.testing.assert_close(q, torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


def test_sinkhorn_survives_a_prototype_that_nobody_is_near() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    logits[:, 2] = -1e4
    assert sinkhorn(logits, 0.04).isfinite().all()


def test_sinkhorn_refuses_nothing() -> None:
    with pytest.raises(ConfigError, match=r"\(0, 4\)"):
        sinkhorn(torch.zeros(0, 4), 1.0)


def test_dino_compares_no_view_with_itself() -> None:
    """Teacher certain of prototype 0 in view 0 and of 1 in view 1; the student certain of the other one: no loss."""
    teacher = torch.eye(2)[:, None]
    student = 1000 * torch.eye(2).flip(0)[:, None]
    assert dino_loss(student, teacher, 1.0, same_views=True) == 0
    assert dino_loss(student, teacher, 1.0, same_views=False) == pytest.approx(500)


def test_dino_of_an_undecided_student_is_the_logarithm_of_the_prototypes() -> None:
    teacher = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert dino_loss(torch.zeros(4, 3, 8), teacher, 0.1, same_views=False) == pytest.approx(math.log(8))


def test_ibot_weighs_crops_alike_however_many_patches_they_mask() -> None:
    """Crop a masks one patch, crop b three, crop c none; all undecided among four."""
    weights = torch.tensor([1.0, 1 / 3, 1 / 3, 1 / 3])
    loss = ibot_loss(torch.zeros(4, 4), torch.full((4, 4), 0.25), weights, 3, 0.1)
    assert loss == pytest.approx(2 / 3 * math.log(4))


def test_koleo_of_two_samples_is_the_logarithm_of_their_distance() -> None:
    """(1, 0) and (0, 5), on the unit sphere sqrt(2) apart."""
    assert koleo_loss(torch.tensor([[1.0, 0.0], [0.0, 5.0]])) == pytest.approx(-math.log(math.sqrt(2)))


def test_koleo_looks_at_the_nearest_only() -> None:
    """Two neighbours 60 degrees apart, chord 1, and one opposite the middle of them: chord 2 sin(75 deg)."""
    angles = torch.tensor([30.0, -30.0, 180.0]).deg2rad()
    points = torch.stack([angles.cos(), angles.sin()], 1)
    assert koleo_loss(points) == pytest.approx(-math.log(2 * math.sin(math.radians(75))) / 3, abs=1e-6)


def test_koleo_of_one_sample_is_nothing_and_of_equal_ones_finite() -> None:
    assert koleo_loss(torch.ones(1, 4)) == 0
    equal = torch.ones(3, 4, requires_grad=True)
    koleo_loss(equal).backward()
    assert equal.grad is not None and equal.grad.isfinite().all()


def test_gram_of_a_rotated_set_is_zero_and_of_another_is_not() -> None:
    draw = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 9, 6, generator=draw)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=draw))[0]
    assert gram_loss(3 * patches @ rotation, patches) == pytest.approx(0, abs=1e-12)
    assert gram_loss(torch.randn(2, 9, 6, generator=draw), patches) > 0.05


def test_gram_by_hand() -> None:
    """Two patches, equal in the one set and at right angles in the other: two of four products differ by 1."""
    assert gram_loss(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.eye(2)) == pytest.approx(0.5)


def test_under_autocast_every_term_is_what_it_is_in_float32() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 12, 40, generator=draw) for _ in range(2))
    p = y.softmax(-1)
    head = ProjectionHead(40, 24, 16, 50)
    terms = {
        "dino": lambda: dino_loss(x, p, 0.1, same_views=True),
        "ibot": lambda: ibot_loss(x[0], p[0], torch.ones(12), 2, 0.1),
        "koleo": lambda: koleo_loss(1 + 0.01 * x[0]),  # neighbours that bfloat16 cannot tell apart
        "gram": lambda: gram_loss(x, y),
        "sinkhorn": lambda: sinkhorn(x[0], 0.04),
        "head": lambda: head(x),
    }
    for name, term in terms.items():
        wide = term()
        with torch.autocast("cpu", torch.bfloat16):
            narrow = term()
        assert narrow.dtype is torch.float32 and torch.equal(narrow, wide), name
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(x.bfloat16()), head(x.bfloat16().float()))
