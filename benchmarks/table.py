"Print measurements beside their reference and their floor, with the machine they were made on."
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version


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


def show_table(title, rows, libraries=(), notes=(), file=sys.stdout):
    "Print `rows` of (name, ours, reference, ratio, floor), each value already text; '' where there is none."
    rows = [("", "ours", "reference", "ratio", "floor"), *rows]
    widths = [max(len(str(r[i])) for r in rows) for i in range(5)]
    print(f"\n{title}\n{machine(*libraries)}\n", file=file)
    for k, r in enumerate(rows):
        print("  ".join([str(r[0]).ljust(widths[0]), *(str(v).rjust(w) for v, w in zip(r[1:], widths[1:]))]).rstrip(), file=file)
        if k == 0: print("  ".join("-" * w for w in widths), file=file)
    for note in notes: print(f"\n{note}", file=file)
