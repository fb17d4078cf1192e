# SPDX-License-Identifier: Apache-2.0
"""Where two contracts disagree, and the refusal that prints both sides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omnistream.contract.contract import Contract
from omnistream.contract.file import contract_to_dict
from omnistream.errors import ContractError

STATISTICS = ("state_statistics", "action_statistics")
"""Left out of a comparison by default: two recordings of one robot differ in them."""

ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One field that differs."""

    field: str
    """As in action.dimensions[2].unit."""
    left: Any
    right: Any


def differences(left: Contract, right: Contract, *, ignore: Collection[str] = STATISTICS) -> list[Difference]:
    """All fields that differ, in the order of the file.

    ignore: fields, by the start of their path ("cameras", "action.frame"). A backbone that one side does not name is
    no difference: data sets know none.
    """
    ours, theirs = dict(_leaves(contract_to_dict(left))), dict(_leaves(contract_to_dict(right)))
    found = []
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        a, b = ours.get(name, ABSENT), theirs.get(name, ABSENT)
        ignored = any(name == prefix or name.startswith((f"{prefix}.", f"{prefix}[")) for prefix in ignore)
        if a != b and not ignored and not (name == "backbone" and None in (a, b)):
            found.append(Difference(name, a, b))
    return found


def require_same(
    left: Contract,
    right: Contract,
    *,
    names: tuple[str, str] = ("this", "other"),
    ignore: Collection[str] = STATISTICS,
) -> None:
    """ContractError with a table of all fields that differ; `names` say what the two sides are."""
    found = differences(left, right, ignore=ignore)
    if found:
        raise ContractError(
            f"{names[0]} and {names[1]} disagree in {len(found)} field(s):\n{difference_table(found, names)}"
        )


def difference_table(found: Sequence[Difference], names: tuple[str, str]) -> str:
    """Aligned columns: field, left, right."""
    rows = [("field", *names), *((d.field, str(d.left), str(d.right)) for d in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, value
