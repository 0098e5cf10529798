"Packaging as nbdev 2 does it: everything is read from settings.ini."
import shlex
from configparser import ConfigParser
from pathlib import Path

import setuptools

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

setuptools.setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author=cfg["author"],
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    classifiers=["Development Status :: 3 - Alpha", "Intended Audience :: Developers",
                 "Natural Language :: English", "Programming Language :: Python :: 3.11",
                 "Programming Language :: Python :: 3.12"],
    python_requires=f">={cfg['min_python']}",
    # the papermill notebooks travel inside the package, as moola.notebooks, straight from nbs/
    packages=[*setuptools.find_packages(include=["moola", "moola.*"]), "moola.notebooks"],
    package_dir={"moola.notebooks": "nbs"},
    package_data={"moola.notebooks": ["train.ipynb"]},
    include_package_data=False,
    install_requires=shlex.split(cfg["requirements"]),
    extras_require={"dev": shlex.split(cfg["dev_requirements"])},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["moola=moola._modidx:d"]},
    zip_safe=False,
)
