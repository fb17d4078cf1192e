# SPDX-License-Identifier: Apache-2.0
"""What tasks are called. Some sentences are kept for evaluation: new sentences, made of words that the others have too
(a policy that was taught by a few hundred sentences knows no synonyms). Eleven a task are in demonstrations, as many as
in CALVIN's data (389 for 34 tasks): with four, a policy learnt from nothing took new ones for those of other tasks.

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
         "grasp and lift the {block} cube", "lift up the {block} cube", "grasp the {block} block and lift it",
         "take the {block} block and raise it", "grab the {block} cube and pick it up", "go and lift the {block} block",
         "take hold of the {block} cube and lift it up", "pick the {block} cube up from the table"),
        ("pick up the {block} cube", "grasp and raise the {block} block"),
    ),
    "push": Wording(
        ("push the {block} block to the {side}", "shove the {block} cube {side}", "slide the {block} block {side}",
         "go and push the {block} cube to the {side}", "push the {block} block {side}",
         "shove the {block} block to the {side}", "slide the {block} block over to the {side}",
         "move the {block} block {side}", "move the {block} cube to the {side}",
         "go and slide the {block} block to the {side}", "push the {block} cube towards the {side}"),
        ("push the {block} cube {side}", "slide the {block} cube to the {side}"),
    ),
    "place": Wording(
        ("put the {block} block in the drawer", "place the {block} cube into the drawer",
         "drop the {block} block into the open drawer", "store the {block} cube in the drawer",
         "put the {block} block into the drawer", "drop the {block} cube in the drawer",
         "grasp the {block} block and put it in the drawer", "take the {block} cube and place it in the drawer",
         "store the {block} block in the open drawer", "pick up the {block} block and drop it in the drawer",
         "move the {block} cube into the drawer"),
        ("place the {block} block in the drawer", "put the {block} cube into the open drawer"),
    ),
    "stack": Wording(
        ("stack the {block} block on the {base} block", "put the {block} cube on top of the {base} cube",
         "place the {block} block on the {base} one", "set the {block} cube on the {base} block",
         "stack the {block} cube on the {base} cube", "put the {block} block onto the {base} block",
         "place the {block} cube on top of the {base} block", "take the {block} cube and put it on the {base} one",
         "grasp the {block} block and stack it on the {base} block", "set the {block} block onto the {base} cube",
         "pick up the {block} block and set it on top of the {base} block"),
        ("stack the {block} cube on top of the {base} cube", "set the {block} block on the {base} one"),
    ),
    "open": Wording(
        ("open the drawer", "pull the drawer open", "pull out the drawer", "pull the handle of the drawer",
         "pull the drawer out", "slide the drawer open", "go and open the drawer", "open up the drawer",
         "grasp the handle and pull the drawer open", "take the handle of the drawer and pull it",
         "grasp the drawer and pull it out"),
        ("pull open the drawer", "pull the handle and open the drawer"),
    ),
    "close": Wording(
        ("close the drawer", "shut the drawer", "push the drawer closed", "push the handle of the drawer in",
         "slide the drawer shut", "go and close the drawer", "push the drawer back in", "shut the open drawer",
         "push the open drawer closed", "close up the drawer", "move the drawer back in until it is shut"),
        ("push the drawer shut", "push in the drawer"),
    ),
    "on": Wording(
        ("press the button to turn on the lamp", "turn on the light", "switch the lamp on",
         "push the button to switch on the light", "turn on the lamp", "switch on the light",
         "push the button so that the lamp turns on", "go and turn on the light",
         "press the button until the light is on", "light the lamp", "push down the button to turn on the lamp"),
        ("turn the lamp on", "press the button to switch the light on"),
    ),
    "off": Wording(
        ("press the button to turn off the lamp", "turn off the light", "switch the lamp off",
         "push the button to switch off the light", "turn off the lamp", "switch off the light",
         "push the button so that the lamp turns off", "go and turn off the light",
         "press the button until the light is off", "put out the light", "push down the button to turn off the lamp"),
        ("turn the lamp off", "press the button to switch the light off"),
    ),
    "slider": Wording(
        ("move the slider to the {side}", "drag the slider {side}", "move the orange knob {side}",
         "pull the orange knob to the {side}", "slide the knob to the {side}", "push the slider {side}",
         "push the orange knob to the {side}", "go and move the slider to the {side}",
         "grasp the orange knob and pull it {side}", "take the slider and drag it to the {side}",
         "move the knob of the slider {side}"),
        ("move the slider {side}", "drag the orange knob to the {side}"),
    ),
}  # fmt: skip
