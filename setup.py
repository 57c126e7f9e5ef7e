"""Ships the folder `conf/` inside the package, as `nemo_cosmos.conf`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["nemo_cosmos", "nemo_cosmos.*"]), "nemo_cosmos.conf"],
    package_dir={"nemo_cosmos.conf": "conf"},
    package_data={
        "nemo_cosmos.conf": ["**/*.yaml"],
        "nemo_cosmos": ["**/*.html", "**/*.yaml", "**/*.json"],
        "nemo_cosmos.tiny": ["checkpoints/**/*"],
    },
)
