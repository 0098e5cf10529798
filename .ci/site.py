"Build the site where there is no Quarto: nbdev prepares the notebooks in `_proc/`, smalldocs renders them into `_proc/_docs/`."
import os
import sys

from nbdev.serve import proc_nbs
from smalldocs.site import build


def main():
    os.environ.setdefault("PYTHONWARNINGS", "ignore:Found cells containing imports")  # nbdev's processes: a lesson cell may import what it shows
    site = build(proc_nbs(force=True))
    # nbdev names each page's file for Quarto; smalldocs says that it takes the notebook's name, and links agree with that
    problems = [w for w in site.warnings if "output-file is not read" not in w]
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__": sys.exit(main())
