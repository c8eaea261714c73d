"""MovieLens 100K in a few lines: split, fit, evaluate beside popularity, recommend with titles."""

import palate

split = palate.leave_one_out(palate.load("ml-100k"))
split = split.with_candidates(palate.draw_candidates(split, 100, seed=0))
found = palate.compare(split, ["popularity", palate.GMF.fast()])
for name in ("popularity", "gmf"):
    measure = found.report(name, "sampled").measure("NDCG", 10)
    print(f"{name}: NDCG@10 {measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f})")
print(found.report("gmf", "sampled").candidates)
print(palate.Recommender.of(found.fitted("gmf").model, split.train).recommend([196], k=5))
