# SPDX-License-Identifier: Apache-2.0
"""Worker processes import the made-up simulator by name, so its folder goes on the path they inherit."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
