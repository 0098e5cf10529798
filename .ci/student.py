"""Make the student that comes with moola: four networks of `recommended` teach it on simulated bars.

    python .ci/student.py                    # half an hour on one core
    python .ci/student.py --device cuda      # minutes

The networks learn from the 174 simulated windows that the included model learned from, and from as many windows of background. The student learns
from 200,000 bars of the simulated market whose labels it doesn't see, gets its calibration and threshold on other bars in a row, and is promoted with
its scores on a third series, in a project of its own. Then its folder replaces `artifacts/included/student/`.
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
from moola.models.included import INCLUDED
from moola.release.command import moola_promote
from moola.release.student import fit_student
from moola.training.distil import distil

LEARN, FIT, JUDGE = 16, 17, 18  # seeds of the series


def known(folder, name, seed):
    "Bars in a row and their labels, as files in a folder."
    series = simulate_labelled_bars(400, seed=seed)
    files, times = (folder/f"{name}.parquet", folder/f"{name}.csv"), series.bars.timestamp.to_numpy()
    series.bars.to_parquet(files[0])
    pd.DataFrame(dict(start_time=times[series.spans[:, 0]], end_time=times[series.spans[:, 1]-1])).to_csv(files[1], index=False)
    return map(str, files)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--right-context", type=int, default=10)
    p.add_argument("--teachers", type=Path, default=Path("artifacts/student-teachers"))
    o = p.parse_args()
    windows, market = simulate_windows(174, 7), simulate_labelled_bars(200_000//230, seed=LEARN).bars
    teachers = networks(background(windows, [market], len(windows)), "simulated", 4, 200, o.teachers, o.device)
    if not (o.teachers/"student"/STUDENT).exists():
        distil(teachers, market, o.teachers/"student", windows, right_context=o.right_context, device=o.device, progress=True)
    with tempfile.TemporaryDirectory() as d:
        student = Path(d)/"artifacts"/"student"
        shutil.copytree(o.teachers/"student", student)
        fit_student(student, *known(Path(d), "fitted", FIT), market="a simulated market")
        bars, labels = known(Path(d), "simulated", JUDGE)
        with chdir(d): moola_promote([str(student), "--bars", bars, "--labels", labels])
        shutil.copytree(Path(d)/"artifacts"/"production", Path(__file__).resolve().parents[1]/"artifacts"/INCLUDED, dirs_exist_ok=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
