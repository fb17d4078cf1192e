# SPDX-License-Identifier: Apache-2.0
"""For colcon: installs launch files, parameter files and viewer layouts; there is no code."""

from pathlib import Path

from setuptools import setup

PACKAGE = "omnistream_bringup"
FOLDERS = ("launch", "config", "layouts")

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Launch files, parameter files and viewer layouts of OmniStream",
    license="Apache-2.0",
    packages=[],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *(
            (f"share/{PACKAGE}/{folder}", sorted(str(path) for path in Path(folder).glob("*.*")))
            for folder in FOLDERS
            if Path(folder).is_dir()
        ),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
)
