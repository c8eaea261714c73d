"""From a CSV file to a saved bundle and lists: python examples/own_data.py clicks.csv"""

import sys

import palate

dataset = palate.read_interactions(sys.argv[1])
print(dataset, *dataset.notes, sep="\n")
split = palate.by_time(dataset, test_size=0.2) if dataset.interactions.time is not None else palate.at_random(dataset)
print(split.how, *split.notes, sep="\n")

recipe, options = palate.GMF.fast(), palate.TrainOptions(seed=0, threads=1)
report = palate.evaluate(recipe.fit(split.train, options), split, k=10)
print(f"{report.candidates}; {report.ties}; {report.users} users")
for measure in report.measures:
    print(f"{measure}: {measure.value:.4f}")

# The evaluation is done, so the model of the bundle may learn from all rows.
bundle = palate.Bundle.of(recipe, recipe.fit(dataset, options), dataset)
bundle.save("bundles/own")
print(palate.Bundle.load("bundles/own").recommender.recommend(dataset.users.ids[:3], k=5))
