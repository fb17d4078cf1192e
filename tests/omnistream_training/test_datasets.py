# SPDX-License-Identifier: Apache-2.0
"""The registry of the paper's data sets, and the page that is made from it."""

from __future__ import annotations

from typing import Any

from omnistream_training.cli import main
from omnistream_training.datasets import DATA_SETS, GROUPS, data_sets_page
from tests.omnistream_training.conftest import ROOT


def test_the_papers_28_names_in_four_groups() -> None:
    assert len({one.name for one in DATA_SETS}) == len(DATA_SETS) == 28
    assert [sum(one.group is group for one in DATA_SETS) for group in GROUPS] == [2, 3, 19, 4]
    assert sum(group.frames for group in GROUPS) == 201
    assert all(one.licence for one in DATA_SETS)


def test_the_page_is_up_to_date() -> None:
    """`omnistream-train datasets --markdown > docs/datasets.md` writes it."""
    assert (ROOT / "docs" / "datasets.md").read_text() == data_sets_page()


def test_the_command_prints_both(capsys: Any) -> None:
    assert main(["datasets"]) == 0
    said = capsys.readouterr().out
    assert "28 data sets" in said and "TartanAir" in said and "not yet" in said
    assert main(["datasets", "--markdown"]) == 0
    assert capsys.readouterr().out == data_sets_page()
