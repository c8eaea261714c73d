"""A CSV file of one's own to a saved bundle and lists: python examples/own_data.py clicks.csv"""

import sys

import palate

dataset = palate.read_interactions(sys.argv[1])
print(dataset, *dataset.notes, sep="\n")
split = palate.by_time(dataset, test_size=0.2) if dataset.interactions.time is not None else palate.at_random(dataset)
print(split.how, *split.notes, sep="\n")

recipe, run = palate.GMF.fast(), palate.TrainOptions(seed=0, threads=1)
report = palate.evaluate(recipe.fit(split.train, run), split, k=10)
print(f"{report.candidates}; {report.ties}; {report.users} users")
for measure in report.measures:
    print(f"{measure}: {measure.value:.4f}")

# What was measured is settled; the bundle learns from all rows.
bundle = palate.Bundle.of(recipe, recipe.fit(dataset, run), dataset)
bundle.save("bundles/own")
print(palate.Bundle.load("bundles/own").recommender.recommend(dataset.users.ids[:3], k=5))
