"""Averaged weights against those of the last step, on windows that no network has seen: one training gives both.

    python benchmarks/averaging.py --save benchmarks/results/averaging.json
    python benchmarks/averaging.py --seeds 3 --epochs 60     # minutes on two cores

Networks of `recommended` learn from 174 simulated windows, and no epoch is chosen. Intervals draw windows and seeds, the difference is paired.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from series_networks import train
from table import machine

from moola.core.config import make_config
from moola.data.features import named_features
from moola.data.plant import simulate_windows
from moola.metrics.intervals import interval, paired_interval, score_of
from moola.models.jade import make_model


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=8)
    p.add_argument("--epochs", type=int, default=200)
    p.add_argument("--windows", type=int, default=600, help="windows that are scored")
    p.add_argument("--ema", type=float, nargs="+", default=[.95])
    p.add_argument("--device", default="cpu")
    p.add_argument("--save", type=Path)
    o = p.parse_args()
    torch.set_num_threads(1)
    config, test = make_config(), simulate_windows(o.windows, 9501)
    x, rows = torch.as_tensor(named_features(test.ohlc, config.features, config.swing_rule)), []

    def answers(weights):
        model = make_model(config).eval()
        model.load_state_dict(weights)
        with torch.no_grad(): return torch.cat([model(part)["span"].sigmoid() for part in x.split(64)]).double().numpy()

    for keep in o.ema:
        both = np.array([[answers(w) for w in train(simulate_windows(174, 101), seed, o.epochs, o.device, keep)] for seed in range(o.seeds)]).swapaxes(0, 1)
        draw, t = np.arange(len(test)), test.mask
        each = [[score_of(t, p)(np.ones((1, len(t))))[0].mean() for p in probs] for probs in both]
        rows.append(dict(ema=keep, averaged=list(interval(score_of(t, both[0]), draw, t.sum(1)))[:3], last=list(interval(score_of(t, both[1]), draw, t.sum(1)))[:3],
                         difference=list(paired_interval(score_of(t, both[0]), score_of(t, both[1]), draw))[:3], by_seed=np.array(each, float).tolist()))
        r = rows[-1]
        print(f"ema {keep}: averaged {np.round(r['averaged'], 3)}, last step {np.round(r['last'], 3)}, difference {np.round(r['difference'], 3)}; "
              f"spread over {o.seeds} seeds {np.std(each[0]):.4f} and {np.std(each[1]):.4f}", flush=True)
        if o.save: o.save.write_text(json.dumps(dict(machine=machine(), options={k: v for k, v in vars(o).items() if k != "save"}, rows=rows), indent=1))


if __name__ == "__main__": main()
