"Print measurements beside their reference and their floor, with the machine they were made on, and keep them for the site."
import argparse
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def processor() -> str:
    "The processor's name as the system gives it."
    try:
        with open("/proc/cpuinfo") as f: names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    except OSError: names = []
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    "Cores that this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(*libraries) -> str:
    "Processor, cores, Python and the versions of the named libraries, in one line."
    def named(lib):
        try: return f"{lib} {version(lib)}"
        except PackageNotFoundError: return f"{lib} absent"
    return ", ".join([processor(), f"{cores()} cores", f"Python {platform.python_version()}", *map(named, libraries)])


def seconds(run, repeats=9) -> float:
    "The shortest of `repeats` runs, after one that is not counted."
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def arguments(doc) -> argparse.ArgumentParser:
    "The command line of a speed benchmark: what its docstring says, and `--save`."
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the table as JSON, as results/speed/ holds them for the site")
    return parser


HEAD = ("", "ours", "reference", "ratio", "floor")


def show_table(title, rows, libraries=(), notes=(), save=None, head=HEAD):
    "Print `rows`, each value already text and '' where there is none, under `head`; and write them to the file `save`, if any."
    rows, where = [[str(v) for v in r] for r in rows], machine(*libraries)
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    print(f"\n{title}\n{where}\n")
    for k, r in enumerate([head, *rows]):
        print("  ".join([r[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(r[1:], widths[1:]))]).rstrip())
        if k == 0: print("  ".join("-" * w for w in widths))
    for note in notes: print(f"\n{note}")
    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        save.write_text(json.dumps(dict(title=title, machine=where, head=head, rows=rows, notes=notes), indent=1) + "\n")
