# SPDX-License-Identifier: Apache-2.0
"""For colcon; `pip install` uses the pyproject.toml at the root of the repository."""

from setuptools import find_packages, setup

PACKAGE = "omnistream"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="A causal streaming vision backbone: images to depth, camera pose and features, without ROS",
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
            "omnistream-bench = omnistream.cli.bench:main",
            "omnistream-info = omnistream.cli.info:main",
            "omnistream-replay = omnistream.cli.replay:main",
            "omnistream-stream = omnistream.cli.stream:main",
            "omnistream-weights = omnistream.cli.weights:main",
        ],
    },
)
