"""The width of system C's Bayesian factorization, on validation rows: 20 % of the training rows of its first seed.

    python benchmarks/bmf_width.py [--dims 8 16 24]

Unlike ``palate tune bmf anime`` it gives the recipe what the table gives it: the rows rated -1 as feedback, and no
column with the site's mean rating. Printed for each width: MSE, its paired difference from that of the first width
with a 95 % interval (bootstrap over users as clusters of rows), and seconds of training.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from palate.base import TrainOptions
from palate.data.splits.strategies import at_random
from palate.evaluation.intervals import clustered
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.reproduce.rows import Options
from palate.reproduce.system_c import BEST, load_anime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 16, 24])
    ratings, unrated = load_anime(Options())
    part = at_random(at_random(ratings, test_size=0.2, seed=0, cold="keep").train, test_size=0.2, seed=0, cold="keep")
    rating_N, user_N = part.test.interactions.weight, part.test.interactions.user
    first_N = None
    for dim in parser.parse_args().dims:
        begin = time.perf_counter()
        model = replace(BEST, dim=dim).fit(part.train, TrainOptions(threads=1), unrated=unrated)
        seconds = time.perf_counter() - begin
        square_N = np.square(evaluate_ratings(model, part, resamples=0).predicted - rating_N)
        first_N = square_N if first_N is None else first_N
        difference = "{:+.4f} ({:+.4f} to {:+.4f})".format(*clustered(square_N - first_N, user_N))
        print(f"dim {dim}: MSE {square_N.mean():.4f}, {difference}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
