"""mmsegmentation beside mmcv-lite, each case in its own interpreter because imports are remembered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rfclip.plugin import compat

ROOT = Path(__file__).parents[2]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)


def with_fake_mmcv(folder: Path, version: str | None) -> str:
    """Code that makes ``folder`` the only place where mmcv is looked for, holding ``version`` or nothing."""
    if version is not None:
        (folder / "mmcv").mkdir()
        (folder / "mmcv/__init__.py").write_text("")
        (folder / "mmcv/version.py").write_text(f"__version__ = {version!r}")
    return f"""
import importlib.machinery, sys
class OnlyHere:
    def find_spec(self, name, path=None, target=None):
        if name == "mmcv":
            spec = importlib.machinery.PathFinder.find_spec(name, [{str(folder)!r}])
            if spec is None:
                raise ModuleNotFoundError("No module named 'mmcv'", name="mmcv")
            return spec
sys.meta_path.insert(0, OnlyHere())
"""


def test_everything_of_mmseg_imports_after_rfclip() -> None:
    done = python(
        "import sys, rfclip, mmseg.apis, mmseg.models, mmseg.datasets\n"
        "from mmengine.utils.dl_utils.misc import mmcv_full_available\n"
        "from mmcv.ops import point_sample\n"
        "mmcv_full_available()\n"
        "print('mmcv._ext' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]


def test_a_missing_operator_says_which_and_what_to_install() -> None:
    done = python("import rfclip, torch\nfrom mmcv.ops import nms\nnms(torch.zeros(1, 4), torch.zeros(1), 0.5)")
    assert done.returncode != 0
    assert "ImportError: the compiled operator 'nms' is not part of mmcv-lite; install the full mmcv" in done.stderr


def test_placeholder_has_no_dunder_attributes_of_its_own() -> None:
    with pytest.raises(AttributeError):
        _ = compat._Placeholder("mmcv._ext").__path__


WITHOUT_MMSEG = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import rfclip
print("WARNED", len(said), said[0].message)
for name in ("RFCLIP", "encode_dense"):
    try:
        getattr(rfclip, name)
    except ImportError as error:
        print("RAISED", error)
import numpy as np
segmenter = rfclip.OpenVocabSegmenter("tiny", device="cpu", short_side=32, method={"type": "MeanKK"}, templates="plain")
print("LABELS", segmenter(np.zeros((40, 50, 3), np.uint8), "voc21").labels.shape, "mmseg" in sys.modules)
"""


@pytest.mark.parametrize("version", [None, "2.2.0", "2.2.0rc1", "1.7.2", "3.0"])
def test_without_a_usable_mmcv_a_warning_says_which_to_install_and_the_rest_works(
    tmp_path: Path, version: str | None
) -> None:
    done = python(with_fake_mmcv(tmp_path, version) + WITHOUT_MMSEG)
    assert done.returncode == 0, done.stderr
    warned, *raised, labels = (line for line in done.stdout.splitlines() if line.split()[0].isupper())
    sentence = "rfclip needs mmcv, and none is installed" if version is None else f"mmcv {version} is installed"
    assert warned.startswith(f"WARNED 1 {sentence}")
    assert all(line.startswith(f"RAISED {sentence}") and "mmcv-lite>=2.0.1,<2.2" in line for line in raised)
    assert (len(raised), labels) == (2, "LABELS (40, 50) False")


def test_a_full_mmcv_is_left_untouched(tmp_path: Path) -> None:
    code = with_fake_mmcv(tmp_path, "2.1.0")
    (tmp_path / "mmcv/_ext.py").write_text("")
    alone = (
        "import runpy; runpy.run_path('rfclip/plugin/compat.py')['enable']()\n"  # the package itself needs a real mmcv
    )
    done = python(code + alone + "print([m for m in ('mmcv.ops', 'mmcv._ext') if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_enable_again_changes_nothing() -> None:
    before = sys.modules["mmcv.ops"]
    compat.enable()
    assert sys.modules["mmcv.ops"] is before
    assert "mmcv._ext" not in sys.modules


def test_no_home_directory_is_no_reason_to_fail(tmp_path: Path) -> None:
    done = python(
        "import os, pwd\n"
        "def nobody(*_): raise KeyError('no entry')\n"
        "pwd.getpwuid = pwd.getpwnam = nobody\n"
        "for name in ('HOME', 'XDG_CACHE_HOME'): os.environ.pop(name, None)\n"
        "import rfclip, torch\n"
        "from rfclip.io.cache import cached_tensors\n"
        "from rfclip.io.paths import without_paths\n"
        "assert 'XDG_CACHE_HOME' not in os.environ\n"
        f"for folder in ('', '~name/x', '~', {str(tmp_path)!r}):\n"
        "    os.environ['RFCLIP_CACHE'] = folder\n"
        "    assert cached_tensors('k', lambda: {'a': torch.ones(2)})['a'].sum() == 2\n"
        "print(without_paths(['~cat', '~/cat']))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("['~cat', '~/cat']\n")
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
