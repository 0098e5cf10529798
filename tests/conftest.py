"Fixtures for all tests. What needs the real bars or a browser is skipped, with the reason, where they are not on this machine; in CI a missing browser fails."
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from moola.core.command import settle

settle()  # as a command's process does

settings.register_profile("moola", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("moola")

ROOT = Path(__file__).resolve().parents[1]

LONG = ("test_pod", "test_site_browser", "test_project", "test_training", "test_analysis", "test_label", "test_evaluate", "test_runs", "test_sweep", "test_background", "test_chart",
        "test_alarms", "test_many", "test_promote", "test_export", "test_jupyterlab", "test_series")


def pytest_collection_modifyitems(items):
    "The longest files first, so that no worker is left alone with one of them at the end; `--no-loadscope-reorder` keeps this order among workers."
    items.sort(key=lambda i: LONG.index(i.path.stem) if i.path.stem in LONG else len(LONG))


# A shell that starts the tests in the background tells them, and whatever they start, to ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)


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


def clean_env() -> dict:
    "The environment with this Python's tools first on the path, and without what git sets while it runs a hook."
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}


STARTED = []  # processes of the test that runs


def start(*words, cwd, **env):
    "Start a command as a terminal does: in a process group of its own, so that Ctrl-C reaches all of it."
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    STARTED.append(subprocess.Popen([Path(sys.executable).parent/words[0], *map(str, words[1:])], cwd=cwd, env=own | env, text=True, start_new_session=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return STARTED[-1]


@pytest.fixture(autouse=True)
def nothing_goes_on():
    "What a failed test has started ends with it."
    yield
    while STARTED:
        if (p := STARTED.pop()).poll() is None: os.killpg(p.pid, signal.SIGKILL)


def copy_project(root, folder) -> Path:
    "A copy of the project below `folder`, as git would commit it now, with a history of its own."
    if not (root / ".git").exists(): pytest.skip("not a git checkout")
    def git(*cmd, cwd): return subprocess.run(["git", *cmd], cwd=cwd, env=clean_env(), check=True, capture_output=True, text=True).stdout
    copy = folder / root.name
    for name in filter(None, git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=root).split("\0")):
        if not (root / name).exists(): continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy / name, follow_symlinks=False)
    for cmd in (["init"], ["add", "--all"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--message=now"]):
        git(*cmd, cwd=copy)
    return copy


@pytest.fixture
def checkout(root, tmp_path) -> Path:
    "A copy of the project: a test may change what it likes there."
    return copy_project(root, tmp_path)


@pytest.fixture(scope="session")
def built(root, run, tmp_path_factory, worker_id) -> Path:
    "A copy of the project in which the site is built, without Quarto, in `_proc/_docs`; to be read only. The first worker that needs it builds it."
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent)/"site"
    copy, done = folder/root.name, folder/"built"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            copy_project(root, folder)
            run("python", ".ci/site.py", cwd=copy)
            done.touch()
    return copy


@pytest.fixture(scope="session")
def run():
    "Run a command with this environment's tools first on the path; a failure shows what it printed."
    def _run(*cmd, cwd, code=0) -> str:
        done = subprocess.run([str(c) for c in cmd], cwd=cwd, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        if done.returncode != code: pytest.fail(f"{cmd[0]} ended with {done.returncode}, not {code}:\n{done.stdout[-6000:]}", pytrace=False)
        return done.stdout
    return _run


def absent(reason):
    "Skip a test for want of a program; in CI, where `.ci/run` installs them all, fail it."
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    "Path of the browser: Debian's chromium, or whichever of its kind is installed."
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return path or absent("no chromium here (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(chromium):
    "A headless browser (Playwright's synchronous API): `browser.new_page()`. While it runs, `asyncio.run` fails in this process."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium)
        yield started
        started.close()
