"Package metadata and requirements come from settings.ini, their only place."
from configparser import ConfigParser

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
meta = config["DEFAULT"]

setup(
    name=meta["lib_name"],
    version=meta["version"],
    description=meta["description"],
    license="Apache-2.0",
    python_requires=f">={meta['min_python']}",
    packages=find_packages(include=["og_project*"]),
    install_requires=meta["requirements"].split(),
    extras_require={name: meta[f"{name}_requirements"].split() for name in ("serve", "pipeline", "dev")},
    entry_points={
        "console_scripts": meta["console_scripts"].split(),
        "papermill.engine": meta["papermill_engine"].split(),
    },
)
