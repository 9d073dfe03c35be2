"""Packaging. The dependencies stand in requirements.txt, once; the configs are shipped inside the package."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
README = ROOT / "README.md"


def requirements() -> list[str]:
    """The lines of requirements.txt without comments."""
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line]


def version() -> str:
    """The version, read without importing the package."""
    return re.search(r'__version__ = "(.+)"', (ROOT / "rfclip/version.py").read_text()).group(1)


class BuildWithConfigs(build_py):
    """Copies configs/ into the package's .mim, where ``rfclip.config`` and openmim find it once installed."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "rfclip" / ".mim"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "configs", target / "configs", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "model-index.yml", target)

    def get_source_files(self) -> list[str]:
        configs = [path for suffix in ("py", "yml") for path in ROOT.glob(f"configs/**/*.{suffix}")]
        extra = [*configs, ROOT / "model-index.yml", ROOT / "requirements.txt"]
        return [*super().get_source_files(), *(str(path.relative_to(ROOT)) for path in extra)]


MMCV = [line for line in requirements() if line.startswith("mmcv")]  # would overwrite a full mmcv: an extra
DEMO = ["gradio>=6.0"]

setup(
    name="rfclip",
    version=version(),
    description="Training-free open-vocabulary segmentation by target refocusing, for mmsegmentation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    entry_points={"console_scripts": ["rfclip = rfclip.cli:main"]},
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["rfclip", "rfclip.*"]),
    package_data={"rfclip": ["py.typed", "data/*", "data/**/*", "explain/*.html", "demo/*.html"]},
    include_package_data=False,
    install_requires=[line for line in requirements() if line not in MMCV],
    extras_require={
        "lite": MMCV,
        "demo": DEMO,
        "dev": [
            *DEMO,  # the browser test clicks through it
            "pytest>=8.0",
            "pytest-xdist>=3.5",  # the tests on two cores
            "hypothesis>=6.100",
            "ruff>=0.5",
            "mypy>=1.10",
            "setuptools>=64",
            "wheel>=0.43",
            "selenium>=4.20",  # drives the browser test
            "nbclient>=0.10",  # runs docs/tour.ipynb
            "ipykernel>=6.29",  # in this Python
        ],
    },
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)],
    cmdclass={"build_py": BuildWithConfigs},
)
