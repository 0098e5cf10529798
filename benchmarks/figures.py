"""Make stored figures anew: everything in `results/`, which the site and the README take their numbers from.

    python benchmarks/figures.py --list                  # each file, what it needs, and the commands that make it
    python benchmarks/figures.py                         # all that this machine can make: days without a GPU, hours with one
    python benchmarks/figures.py speed/scan-cpu gaps     # some

Benchmarks run one after another, so that none is timed beside another. They work in a folder of the present commit below `artifacts/benchmarks/`, where
one that was stopped goes on; what the commit has made already is skipped, unless named with `--again`. A file is replaced once its benchmark has ended,
and what fails or cannot be made here is named at the end. `make figures` also runs the pages.
"""
import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, WORK = ROOT/"benchmarks"/"results", ROOT/"artifacts"/"benchmarks"
CPU, GPU, ANY, REAL = "a CPU", "a CUDA GPU", "a GPU or much time", "the bars of shared/data"
SCORED = "{python} experiments.py --bench {bench} --out {work} {names}; {python} experiments.py --table {work} --save {file}"
SIMULATED = "{python} simulated_v2.py --output {work} --save {file} {names}"
PLAIN = "{python} {script}.py --save {file}"


def plain(script, words="", needs=(CPU,)): return (f"{PLAIN} {words}".replace("{script}", script).strip(), needs)


def scored(bench, names, needs=(ANY,)): return ((SIMULATED if bench == "simulated-v2" else SCORED.replace("{bench}", bench)).replace("{names}", names), needs)


STEPS = "{steps}"
AVERAGED = shlex.join(["pasted labels", *(f"averaged weights {k}" for k in (.9, .95, .98))])
TAUGHT = shlex.join(["pasted labels", "refitted", "teachers", "taught", "taught, refitted"])
LATE = shlex.join(["pasted labels", *(f"right context {k}" for k in (0, 3, 10, 20))])
FIGURES = {
    "speed/features-cpu": plain("features"), "speed/read": plain("read"), "speed/training-cpu": plain("training"), "speed/threads": plain("threads", "6"),
    "speed/cpu-step": plain("cpu_step"), "speed/many-cpu": plain("many"), "speed/scan-cpu": plain("scan", "--device cpu"), "speed/stream": plain("stream"),
    "speed/series": plain("series_speed"), "speed/series-file-cpu": plain("series_file"), "speed/explore": plain("explore"), "speed/chart": plain("chart"), "speed/sweep-cpu": plain("sweep"),
    "speed/scan-folder-cpu": plain("scan_folder", "--workers 1 2 --files 8 --repeats 3"),
    "speed/training-gpu": plain("training_gpu", needs=(GPU,)), "speed/many-gpu": plain("many", needs=(GPU,)),
    "speed/scan-gpu": plain("scan", "--device cuda", (GPU,)), "speed/sweep-gpu": plain("sweep", "--device cuda --runs 192 --epochs 100 --workers 1", (GPU,)),
    "speed/series-file-gpu": plain("series_file", "--device cuda --threads 8", (GPU,)),
    "speed/scan-folder-gpu": plain("scan_folder", "--device cuda --workers 1 --files 8 --bars 500000 --file-bars 500000", (GPU,)),
    "soak": plain("soak"), "gaps": plain("gaps"), "hands": plain("hands"), "health": plain("health"), "patience": plain("patience"), "propose": plain("propose", "--work {work}.scores"),
    "recut": plain("recut"), "similar": plain("similar"), "attribution": plain("attribution"),
    "coverage": ("{python} interval_coverage.py --save {file} --processes {cores}", (CPU,)),
    "limit": plain("limit", "--device {device} --output {work}", (ANY,)),
    "student-delay": plain("student_delay", "--device {device}"), "delay": plain("delay", "--device {device} --output {work}", (ANY,)),
    "background": plain("background", "--device {device}", (ANY, REAL)), "pretrain": plain("pretrain", "--device {device}", (ANY, REAL)),
    "series-v1": plain("series_v1", "--device {device} --output {work} --variants", (ANY, REAL)),
    "simulated-v1": scored("simulated-v1", STEPS), "simulated-v2": scored("simulated-v2", STEPS), "real-rule-v1": scored("real-rule-v1", STEPS, (ANY, REAL)),
    "averaging-v1": scored("simulated-v1", AVERAGED), "averaging-v2": scored("simulated-v2", AVERAGED), "averaging-real": scored("real-rule-v1", AVERAGED, (ANY, REAL)),
    "right-context-v2": scored("simulated-v2", LATE),
    "labels-v2": ("{python} simulated_v2.py --output {work} --labels 50 174 500 5000 --curve {file} 'pasted labels' guide", (ANY,)),
    "taught-v2": scored("simulated-v2", TAUGHT), "taught-real": scored("real-rule-v1 --seeds 12", TAUGHT, (ANY, REAL)),
    "taught-fresh": plain("simulated_v2", "--output {work} --fresh --sets 4 --seeds 1 'pasted labels' refitted taught 'taught, refitted'", (ANY,)),
    "taught-labels-v2": ("{python} simulated_v2.py --output {work} --labels 50 174 500 5000 --curve {file} teachers taught refitted 'taught, refitted'", (ANY,)),
    "simulated-v2-fresh": plain("simulated_v2", "--output {work} --fresh", (ANY,)), "simulated-v2-reduced": plain("simulated_v2", "--output {work} --reduced"),
}


def steps():
    "The experiments and baselines that the page on experiments shows step by step."
    from experiments import BASELINES, EXPERIMENTS
    return [n for n in (*EXPERIMENTS, *BASELINES) if not n.startswith(("averaged", "right context", "teachers", "taught", "refitted"))]


def cuda():
    "Is there a GPU? Asked in a process of its own, which gives it back."
    return subprocess.run([sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]).returncode == 0


def real(): return any((p/"data").is_dir() for p in (Path(os.environ.get("MOOLA_SHARED", ROOT.parent/"shared")), ROOT/"shared"))


def commands(name, work, gpu=False):
    "The command lines that make a figure in the folder `work`, as lists of words."
    text = FIGURES[name][0]
    words = dict(python=sys.executable, file=made_at(name, work), work=work/name, cores=os.cpu_count(), device="cuda" if gpu else "cpu")
    text = text.replace(STEPS, shlex.join(steps())) if STEPS in text else text
    return [[w.format(**words) for w in shlex.split(part)] for part in text.split(";")]


def made_at(name, work): return work/"made"/(name if (RESULTS/name).is_dir() else f"{name}.json")


def make(name, work, gpu):
    "Run what makes a figure, in the folder of benchmarks, and put it into its place; says whether all of it ended well."
    began, hidden, file = time.perf_counter(), dict(CUDA_VISIBLE_DEVICES="") if CPU in FIGURES[name][1] else {}, made_at(name, work)
    print(f"\n== {name}", flush=True)
    for folder in (file.parent, (work/name).parent): folder.mkdir(parents=True, exist_ok=True)
    for words in commands(name, work, gpu):
        if subprocess.run(words, cwd=ROOT/"benchmarks", env=os.environ | hidden).returncode: return False
    if file.is_dir(): shutil.copytree(file, RESULTS/name, dirs_exist_ok=True)
    else: shutil.copy(file, RESULTS/f"{name}.json")
    print(f"== {name}: {(time.perf_counter()-began)/60:.1f} min", flush=True)
    return True


def commit():
    "The commit, and a number for what differs from it, as a name for what they have made."
    def git(*words): return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()
    changes = git("diff", "HEAD", "--", "moola", "benchmarks/*.py")
    return (git("rev-parse", "--short", "HEAD") or "none") + (f"-{zlib.crc32(changes.encode()):08x}" if changes else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="files of results/, without .json; default: all")
    parser.add_argument("--list", action="store_true", help="say what makes each, and make nothing")
    parser.add_argument("--again", action="store_true", help="also what this commit has made already")
    o = parser.parse_args()
    if unknown := [n for n in o.figures if n not in FIGURES]: sys.exit(f"figures: there is no figure {unknown[0]}: choose from {', '.join(FIGURES)}")
    wanted = o.figures or list(FIGURES)
    if o.list: return print("\n".join(f"{n:22} needs {' and '.join(FIGURES[n][1])}\n    " + FIGURES[n][0].replace("; ", "\n    ") for n in wanted))
    gpu, bars, work = cuda(), real(), WORK/f"figures-{commit()}"
    made = [n for n in wanted if (work/f"{n}.done").exists() and not o.again]
    lacking = {n: k for n in wanted for k, there in ((GPU, gpu), (REAL, bars)) if k in FIGURES[n][1] and not there}
    failed = []
    for name in (n for n in wanted if n not in lacking and n not in made):
        if make(name, work, gpu): (work/f"{name}.done").touch()
        else: failed.append(name)
    if made: print(f"made by this commit already: {', '.join(made)}")
    for name, what in lacking.items(): print(f"left as it was: {name}, which needs {what}")
    if failed: sys.exit(f"figures: failed, and left as they were: {', '.join(failed)}")


if __name__ == "__main__": main()
