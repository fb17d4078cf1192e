# SPDX-License-Identifier: Apache-2.0
"""The steps to SIMPLER in ManiSkill 3 on Linux x86-64, with a GPU's Vulkan driver or Mesa's for the CPU."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

from omnistream_sim.evaluation.install import Step, installed, pip

from .environment import assets_folder, missing_assets

REQUIREMENTS = ("mani_skill==3.0.1", "sapien==3.0.3")


def simpler_steps() -> list[Step]:
    """What `omnistream-sim install simpler` does; assets go where ManiSkill keeps them (MS_ASSET_DIR)."""
    asset = (sys.executable, "-m", "mani_skill.utils.download_asset", "-y")
    return [
        Step("ManiSkill 3 (Apache-2.0) and SAPIEN 3 (MIT)", installed("mani_skill", "sapien"), (pip(*REQUIREMENTS),)),
        Step(
            f"the WidowX robot and the Bridge tasks' assets in {assets_folder()} (82 MB)",
            lambda: not missing_assets(),
            ((*asset, "widowx250s"), (*asset, "bridge_v2_real2sim")),
        ),
        Step(
            "a Vulkan driver that SAPIEN accepts",
            has_vulkan,
            note="a GPU's own, or Mesa's for the CPU from version 25 (22.3 is refused); on Debian 12: "
            "apt-get install -t bookworm-backports mesa-vulkan-drivers",
        ),
    ]


def has_vulkan() -> bool:
    """Whether SAPIEN finds a device to render with; asked in a process of its own, since a driver may crash."""
    if importlib.util.find_spec("sapien") is None or shutil.which(sys.executable) is None:
        return False
    program = "import sapien; sapien.render.RenderSystem(); print('renders')"
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return False
    return "renders" in done.stdout
