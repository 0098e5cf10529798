"Packaging as nbdev 2 does it: everything is read from settings.ini."
import shlex
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]


def notebooks():
    "The papermill notebooks: source in `nbs/`, relative path in the package."
    nbs = Path(cfg["nbs_path"])
    for nb in [nbs / "train.ipynb", nbs / "pretrain.ipynb", *sorted(nbs.glob("analysis/*.ipynb"))]:
        if nb.is_file(): yield nb, f"{cfg['lib_name']}/notebooks/{nb.relative_to(nbs).as_posix()}"


def models():
    "The models that come with moola: source in `artifacts/included/`, relative path in the package."
    for file in sorted(Path("artifacts/included").glob("*/*")):
        if file.name in ("model.pt", "model.json", "README.md"): yield file, f"{cfg['lib_name']}/included/{file.parent.name}/{file.name}"


def extras(): return [*notebooks(), *models()]


class BuildWithExtras(build_py):
    "Copies the papermill notebooks into the wheel, as `moola/notebooks/`, and the models, as `moola/included/`; a checkout reads both where they are."
    def run(self):
        super().run()
        if self.editable_mode: return
        for source, target in extras():
            self.mkpath(str(Path(self.build_lib, target).parent))
            self.copy_file(str(source), str(Path(self.build_lib, target)))

    def get_source_files(self): return super().get_source_files() + [str(source) for source, _ in extras()]


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
                 "Programming Language :: Python :: 3.12", "Programming Language :: Python :: 3.13"],
    python_requires=f">={cfg['min_python']}",
    package_dir={"": "."},  # an editable install then puts the project on the path: a folder of the same name cannot hide the package
    packages=setuptools.find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    package_data={f"{cfg['lib_name']}.views": ["static/*"]},
    install_requires=shlex.split(cfg["requirements"]),
    extras_require={"dev": shlex.split(f"{cfg['dev_requirements']} {cfg['onnx_requirements']} {cfg['cluster_requirements']}"),
                    "onnx": shlex.split(cfg["onnx_requirements"]), "cluster": shlex.split(cfg["cluster_requirements"])},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["moola=moola._modidx:d"]},
    cmdclass={"build_py": BuildWithExtras},
    zip_safe=False,
)
