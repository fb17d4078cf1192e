# SPDX-License-Identifier: Apache-2.0
"""For colcon; `pip install` uses the pyproject.toml at the root of the repository."""

from setuptools import find_packages, setup

PACKAGE = "omnistream_policy"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Lifecycle node: images or features and an instruction to safe robot commands",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "policy_node = omnistream_policy.node:main",
        ],
    },
)
