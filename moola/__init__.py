"Find expansions, short price surges, in windows of market bars, from a few hundred labels."
__version__ = "0.1.0"

# The front door. A name is imported when it is first used, so that `import moola` is quick and brings neither torch nor plots.
_FRONT_DOOR = dict(
    MoolaError="core.errors", make_config="core.config", VARIANTS="core.config",
    read_bars="data.read", simulate_bars="data.simulate", read_windows="data.windows", write_windows="data.windows",
    simulate_windows="data.plant", fit="training.fit", Detector="detection.detector", plot_window="views.window",
    chart="views.chart", explore="views.explore", label="labels.label", similar="labels.similar",
    propose="labels.propose", label_health="labels.health", evaluate="evaluation.evaluate", compare="evaluation.compare", promote="release.promote",
    pretrain="transfer.pretrain", distil="transfer.distil", scan_folder="scale.folder", sweep="scale.sweep")
__all__ = ["__version__", *_FRONT_DOOR]

# numba reads where its cache goes when it is imported.
from .core.compiled import set_numba_cache as _set_numba_cache
_set_numba_cache()


def __getattr__(name):
    if name not in _FRONT_DOOR: raise AttributeError(f"module 'moola' has no attribute {name!r}")
    from importlib import import_module
    value = getattr(import_module(f"moola.{_FRONT_DOOR[name]}"), name)
    globals()[name] = value
    return value


def __dir__(): return sorted({*globals(), *_FRONT_DOOR})
