# SPDX-License-Identifier: Apache-2.0
"""For colcon; `pip install` uses the pyproject.toml at the root of the repository."""

from setuptools import find_packages, setup

PACKAGE = "omnistream_ros"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="What every OmniStream node needs: parameters, QoS, image conversion, diagnostics, camera source",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "assets/**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "camera_source = omnistream_ros.camera_source:main",
            "episode_recorder = omnistream_ros.episode_recorder:main",
            "omnistream-up = omnistream_ros.up:main",
        ],
        "omnistream.info": ["ros = omnistream_ros.info:section"],
    },
)
