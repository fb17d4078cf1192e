# SPDX-License-Identifier: Apache-2.0
"""What tasks are called. Some sentences are kept for evaluation: new sentences, made of words that the others have too
(a policy that was taught by a few hundred sentences knows no synonyms).

{block}, {base}: a colour. {side}: left or right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """Sentences for one thing to do."""

    seen: tuple[str, ...]
    """In demonstrations."""
    unseen: tuple[str, ...]
    """In evaluations only."""

    def fill(self, words: Mapping[str, str]) -> Wording:
        """With colours and sides put in."""
        return Wording(
            tuple(text.format(**words) for text in self.seen), tuple(text.format(**words) for text in self.unseen)
        )


WORDINGS: dict[str, Wording] = {
    "lift": Wording(
        ("lift the {block} block", "pick up the {block} block", "raise the {block} cube",
         "grasp and lift the {block} cube"),
        ("pick up the {block} cube", "grasp and raise the {block} block"),
    ),
    "push": Wording(
        ("push the {block} block to the {side}", "shove the {block} cube {side}", "slide the {block} block {side}",
         "go and push the {block} cube to the {side}"),
        ("push the {block} cube {side}", "slide the {block} cube to the {side}"),
    ),
    "place": Wording(
        ("put the {block} block in the drawer", "place the {block} cube into the drawer",
         "drop the {block} block into the open drawer", "store the {block} cube in the drawer"),
        ("place the {block} block in the drawer", "put the {block} cube into the open drawer"),
    ),
    "stack": Wording(
        ("stack the {block} block on the {base} block", "put the {block} cube on top of the {base} cube",
         "place the {block} block on the {base} one", "set the {block} cube on the {base} block"),
        ("stack the {block} cube on top of the {base} cube", "set the {block} block on the {base} one"),
    ),
    "open": Wording(
        ("open the drawer", "pull the drawer open", "pull out the drawer", "pull the handle of the drawer"),
        ("pull open the drawer", "pull the handle and open the drawer"),
    ),
    "close": Wording(
        ("close the drawer", "shut the drawer", "push the drawer closed", "push the handle of the drawer in"),
        ("push the drawer shut", "push in the drawer"),
    ),
    "on": Wording(
        ("press the button to turn on the lamp", "turn on the light", "switch the lamp on",
         "push the button to switch on the light"),
        ("turn the lamp on", "press the button to switch the light on"),
    ),
    "off": Wording(
        ("press the button to turn off the lamp", "turn off the light", "switch the lamp off",
         "push the button to switch off the light"),
        ("turn the lamp off", "press the button to switch the light off"),
    ),
    "slider": Wording(
        ("move the slider to the {side}", "drag the slider {side}", "move the orange knob {side}",
         "pull the orange knob to the {side}"),
        ("move the slider {side}", "drag the orange knob to the {side}"),
    ),
}  # fmt: skip
