# SPDX-License-Identifier: Apache-2.0
"""Streams of messages become steps of a policy: causally, with ages, the same for a bag and for the running robot.

newest_index, first_index   which message belongs to a moment
Ticker                      which pictures become control ticks
Aligner                     messages in, observations out
ActionPairer                observations and commands in, steps out
Mapping, load_mapping_file  which topics mean what, one YAML file for import and node
read_fields                 a message's numbers
"""

from omnistream.sync.actions import ActionPairer, Step
from omnistream.sync.aligner import Aligner, Gap, Observation, Stream
from omnistream.sync.cutter import Begin, Cutter, End
from omnistream.sync.fields import read_fields
from omnistream.sync.history import History, first_index, newest_index
from omnistream.sync.mapping import Mapping, load_mapping_file
from omnistream.sync.ticker import Ticker

__all__ = [
    "ActionPairer",
    "Aligner",
    "Begin",
    "Cutter",
    "End",
    "Gap",
    "History",
    "Mapping",
    "Observation",
    "Step",
    "Stream",
    "Ticker",
    "first_index",
    "load_mapping_file",
    "newest_index",
    "read_fields",
]
