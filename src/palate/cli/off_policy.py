"""`palate off-policy`: the value of a policy from the log of another one that drew at random."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli import options
from palate.cli.console import print_json, table
from palate.errors import DataError


def off_policy(
    log: Annotated[Path, typer.Argument(help="Decisions with propensities, or impressions exported from the server.")],
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Evaluate the lists of this bundle, -k items for each user.")
    ] = None,
    explore: Annotated[
        float | None,
        typer.Option("--explore", min=0, max=1, help="Evaluate this share of exploration: 0 is none. Needs --events."),
    ] = None,
    events: Annotated[
        Path | None, typer.Option("--events", help="Events exported from the server, which name the lists clicked.")
    ] = None,
    types: Annotated[
        str | None, typer.Option("--types", help="Event types that count as a reward, with commas. Default: all.")
    ] = None,
    k: options.K = 10,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--include-seen", help="Leave out the items that the user has had, or not.")
    ] = True,
    json: options.Json = False,
) -> None:
    """Estimate the reward of a policy from the log of another one that drew at random with known probabilities.

    LOG is a table with the columns user_id, item_id, propensity and reward: one row per item shown, its probability of
    being shown to this user, and what it earned (1 for a click). With --events, LOG holds impressions of palate serve
    with exploration, which know these probabilities. With --bundle, the value is the mean reward of an item of the
    bundle's lists. --explore says what another share of exploration by the server would earn for each place.

    Three estimates with 95 % intervals over users: IPS, SNIPS (less variance) and DR, doubly robust (least variance
    where rewards can be predicted). A log without propensities, or without support for the policy, is refused.

    Example: palate off-policy shown.csv --bundle bundles/new -k 10

    Example for the server: palate off-policy impressions.ndjson --events events.ndjson --bundle bundles/new
    """
    from palate.data.readers import read_table
    from palate.evaluation import off_policy as estimators

    left_out = 0
    if bundle is not None and explore is None:
        import polars as pl

        from palate.bundle import Bundle

        if events is None:
            decisions = read_table(log, header=True)
            if lost := {"user_id", "item_id", "propensity", "reward"} - set(decisions.columns):
                raise DataError(
                    f"{log} has no column {min(lost)} (it has {', '.join(decisions.columns)}): "
                    "its first line must name user_id, item_id, propensity and reward"
                )
        else:
            shown = estimators.impression_log(log, events, None if types is None else types.split(","))
            decisions = shown.filter("fresh")
            left_out = len(shown) - len(decisions)
        # Ids are their texts: the integers of a CSV file find the strings of a bundle.
        decisions = decisions.with_columns(pl.col("user_id", "item_id").cast(pl.String))
        users = decisions["user_id"].unique(maintain_order=True)
        lists = Bundle.load(bundle).recommender.recommend(users, k, exclude_seen=exclude_seen)
        target = estimators.list_target(lists.with_columns(pl.col("item_id").cast(pl.String)))
        name = f"lists of {k} of {bundle}"
    elif explore is not None and events is not None and bundle is None:
        decisions = estimators.exploration_log(log, events, None if types is None else types.split(","))
        target, name = estimators.explore_target(decisions, explore), f"a share of {explore:g} explored"
    else:
        raise DataError("give one policy to evaluate: --bundle FOLDER, or --explore SHARE with --events FILE")
    found = estimators.off_policy(decisions, target)
    if json:
        print_json({"target": name, "left_out": left_out, **found.to_dict()})
        return
    rows = [[one.name, one.value, f"{one.low:.4f} to {one.high:.4f}"] for one in found.estimates]
    caption = (
        f"{found.decisions:,} decisions of {found.users:,} users, {found.matched:.1%} of which the target may make\n"
        f"mean weight {found.mean_weight:.3f}, largest {found.largest_weight:,.1f}; worth {found.effective:,.0f} "
        "decisions of the target itself"
    )
    if left_out:
        caption += f"\n{left_out:,} decisions left out: further pages, and lists after an event of the user in the log"
    table(f"{name}: mean reward of a decision", ["estimator", "value", "95 % interval over users"], rows, caption)
