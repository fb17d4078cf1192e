# SPDX-License-Identifier: Apache-2.0
"""Names of what a stream hands on."""

from __future__ import annotations

import pytest

from omnistream.errors import InputError
from omnistream.stream.layers import layer_name, taps_in


@pytest.mark.parametrize(("taps", "name"), [((), "patches"), ((0,), "patches+taps:0"), ((1, 12), "patches+taps:1,12")])
def test_names_say_which_blocks(taps: tuple[int, ...], name: str) -> None:
    assert layer_name(taps) == name and taps_in(name) == taps


@pytest.mark.parametrize(
    "name", ["", "block 3", "patches+taps:", "patches+taps:a", "patches+taps:1,", "patches+taps:²"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected 'patches', or such as"):
        taps_in(name)
