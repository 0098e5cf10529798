"What `import moola` offers, and what it costs."
import subprocess
import sys

import moola


def python(code, cwd="/"):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()


def test_nothing_heavy_comes_along():
    code = "import sys, moola; print(*sorted({'torch','numpy','pandas','matplotlib','IPython','numba'} & set(sys.modules)))"
    assert python(code) == ""


def test_every_name_opens():
    assert {"read_bars", "simulate_bars", "read_windows", "write_windows", "simulate_windows", "make_config", "VARIANTS", "fit", "evaluate",
            "compare", "Detector", "chart", "explore", "label", "promote", "plot_window",
            "similar", "propose", "label_health", "pretrain", "distil", "scan_folder", "sweep", "MoolaError"} <= set(moola.__all__)
    for name in moola.__all__: assert getattr(moola, name) is not None
    assert set(moola.__all__) <= set(dir(moola))


def test_names_of_an_extra_open_without_it():
    "`sweep` and `scan_folder` bring neither Dask nor Optuna before they are called."
    code = "import sys, moola; moola.sweep, moola.scan_folder, moola.pretrain; print(*sorted({'dask','distributed','optuna','asyncssh'} & set(sys.modules)))"
    assert python(code) == ""


def test_an_unknown_name_is_an_attribute_error():
    assert "has no attribute 'nothing'" in python("import moola\ntry: moola.nothing\nexcept AttributeError as e: print(e)")


def test_a_folder_of_the_same_name_hides_nothing(tmp_path):
    "As when Python starts in the folder above a clone."
    (tmp_path/"moola/nbs").mkdir(parents=True)
    assert python("from moola import MoolaError; print(MoolaError.__name__)", cwd=tmp_path) == "MoolaError"
