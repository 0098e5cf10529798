"The last line of `make train`: what `recommended` reaches on the benchmark, beside the variant that was trained."
import json
import sys
from pathlib import Path

EXPERIMENT = dict(position_encoding="guide", recommended="pasted labels")   # as benchmarks/results names them


def sentence(results, trained):
    "One line, from stored benchmark results; empty for a variant that they don't hold."
    if trained not in EXPERIMENT or trained == "recommended": return ""
    ap = {r["experiment"]: r["ap"] for r in json.loads(Path(results).read_text()) if r["reading"] == "bar by bar"}
    mine, best = (ap[EXPERIMENT[v]] for v in (trained, "recommended"))
    return (f"On the simulated benchmark {trained} reaches an average precision of {mine:.2f}, and recommended {best:.2f}: "
            "make train VARIANT=recommended")


if __name__ == "__main__":
    line = sentence(Path(__file__).parents[1]/"benchmarks/results/simulated-v2.json", sys.argv[1])
    if line: print(line)
