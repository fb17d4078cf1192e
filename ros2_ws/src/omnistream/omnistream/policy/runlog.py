# SPDX-License-Identifier: Apache-2.0
"""See `omnistream.io.run_log`."""

from omnistream.io.run_log import RecordedRun, RunLog, read_run_log

__all__ = ["RecordedRun", "RunLog", "read_run_log"]
