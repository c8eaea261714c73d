"""MovieLens 100K in a few lines: split, fit, measure beside popularity, recommend with titles."""

import palate

split = palate.leave_one_out(palate.load("ml-100k"))
split = split.with_candidates(palate.draw_candidates(split, 100, seed=0))
contenders = palate.compare(
    split, [palate.Popularity(), palate.GMF.fast()], palate.TrainOptions(seed=0, threads=1), candidates=split.candidates
)
for one in contenders:
    measure = one.report.measure("NDCG", 10)
    print(f"{one.recipe.name}: NDCG@10 {measure.value:.4f} ({measure.low:.4f} to {measure.high:.4f})")
print(contenders[0].report.candidates)
print(palate.Recommender.of(contenders[-1].model, split.train).recommend([196], k=5))
