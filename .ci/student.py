"""Make the students that come with moola: four networks of `recommended` teach them on simulated bars.

    python .ci/student.py                    # half an hour on one core
    python .ci/student.py --device cuda      # minutes

The networks learn from the 174 simulated windows that the included model learned from, and from as many windows of background. Each student learns
from 200,000 bars of the simulated market whose labels it doesn't see, gets its calibration and threshold on other bars in a row, and is promoted with
its scores on a third series, in a project of its own. Then its folder replaces the one in `artifacts/included/`. A run that was stopped goes on.
"""
import argparse
import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]/"benchmarks"))
from series_networks import background, networks

from moola.data.plant import simulate_labelled_bars, simulate_windows
from moola.models.checkpoint import STUDENT
from moola.release.command import moola_promote
from moola.release.student import fit_student
from moola.transfer.distil import distil

LEARN, FIT, JUDGE = 16, 17, 18  # seeds of the series
STUDENTS = {"student": 31, "student-live": 3}  # and the bars that each looks ahead


def known(folder, name, seed):
    "Bars in a row and their labels, as files in a folder."
    series = simulate_labelled_bars(400, seed=seed)
    files, times = (folder/f"{name}.parquet", folder/f"{name}.csv"), series.bars.timestamp.to_numpy()
    series.bars.to_parquet(files[0])
    pd.DataFrame(dict(start_time=times[series.spans[:, 0]], end_time=times[series.spans[:, 1]-1])).to_csv(files[1], index=False)
    return map(str, files)


def include(name, taught):
    "Fit a student on one series, judge it on another, and put it where moola finds it."
    with tempfile.TemporaryDirectory() as d:
        folder = Path(d)/"artifacts"/name
        shutil.copytree(taught, folder)
        fit_student(folder, *known(Path(d), "fitted", FIT), market="a simulated market")
        bars, labels = known(Path(d), "simulated", JUDGE)
        with chdir(d): moola_promote([str(folder), "--bars", bars, "--labels", labels])
        shutil.copytree(Path(d)/"artifacts"/"production", Path(__file__).resolve().parents[1]/"artifacts"/"included"/name, dirs_exist_ok=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--work", type=Path, default=Path("artifacts/student-teachers"), help="folder of networks, answers and students")
    o = p.parse_args()
    windows, market = simulate_windows(174, 7), simulate_labelled_bars(200_000//230, seed=LEARN).bars
    teachers = networks(background(windows, [market], len(windows)), "simulated", 4, 200, o.work, o.device)
    for name, ahead in STUDENTS.items():
        if not (o.work/name/STUDENT).exists():
            distil(teachers, market, o.work/name, windows, right_context=ahead, answers=o.work/"answers", device=o.device, progress=True)
        include(name, o.work/name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
