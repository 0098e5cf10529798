"Fixtures for all tests: the real bars and proof values, skipped where they are not on this machine."
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_folder() -> Path:
    "The folder with real bars: `MOOLA_SHARED`, or `shared` beside the project."
    return Path(os.environ.get("MOOLA_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not (folder / "data").is_dir(): pytest.skip(f"no real bars at {folder}")
    return folder


@pytest.fixture(scope="session")
def root() -> Path: return ROOT
