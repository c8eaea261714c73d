"""Quality against training time: SASRec on ml-1m, next item, full ranking, seen items removed.

    python benchmarks/sasrec_curve.py [--epochs 30] [--every 4] [--data ml-1m]

The test rows are looked at for the curve alone: nothing is chosen by it, and the last epoch is the model. Seconds are
of training, without measuring, on one thread in bfloat16 mixed precision.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from palate.base import TrainOptions
from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.evaluation.evaluate import evaluate
from palate.models.sasrec import SASRec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--data", default="ml-1m")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts = leave_one_out(load(args.data, min_rating="any"), tie="first", cold="keep")
    begin, measuring, epoch = time.perf_counter(), 0.0, 0

    def validation_callback(model: Any) -> float:
        nonlocal measuring, epoch
        epoch += 1
        if epoch % args.every == 0 or epoch == args.epochs:
            start = time.perf_counter()
            report = evaluate(model, parts, k=10, resamples=0)
            measuring += time.perf_counter() - start
            seconds = time.perf_counter() - begin - measuring
            print(f"| {epoch} | {seconds:.0f} | {report.value('Recall', 10):.4f} | {report.value('NDCG', 10):.4f} |")
        return float(epoch)  # ever higher: the last epoch is kept

    print("| epoch | seconds | Recall@10 | NDCG@10 |\n|---:|---:|---:|---:|", flush=True)
    SASRec(epochs=args.epochs).fit(
        parts.train, TrainOptions(validation_callback=validation_callback, patience=args.epochs, precision="bf16-mixed")
    )


if __name__ == "__main__":
    main()
