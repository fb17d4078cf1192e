# SPDX-License-Identifier: Apache-2.0
"""The demo's processes: what is said when one of them ends too early."""

from __future__ import annotations

from omnistream_ros.processes import ProcessGroup


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message is for the user."""


class DemoChildren(ProcessGroup):
    """Processes that have to live until they are stopped, or end well."""

    def check(self, before: str) -> None:
        """DemoFailed, with the last lines of the one that ended badly; `before` names what it was needed for."""
        if self.failed() is not None:
            raise DemoFailed(self.post_mortem(before))

    def post_mortem(self, before: str) -> str:
        """Which one ended badly, and its last lines."""
        failed = self.failed()
        if failed is None:
            return f"a node ended badly before {before}{self.tails()}"
        return (
            f"the {failed.name} process ended with exit code {failed.returncode} before {before}. "
            f"Its last lines:\n{failed.tail()}"
        )

    def tails(self) -> str:
        """The last lines of all."""
        return "".join(f"\nlast lines of {child.name}:\n{child.tail()}" for child in self.children)
