"""SASRec: its equation, its packing, its losses against slow ones, what a history does, resume, and its effect."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from palate.base import DataSpec, Query, TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset, History, Interactions
from palate.data.ids import IdMap
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.errors import RecipeError
from palate.evaluation.evaluate import evaluate
from palate.models.ensemble import Ensemble
from palate.models.popularity import Popularity
from palate.models.sasrec import SASRec, SASRecModel
from palate.models.sasrec.batches import packed_rows
from palate.training.layers import Averaged, ByteDropout
from palate.training.losses import chunked_softmax, gbce, gbce_prior, sampled_softmax
from worlds import World

RUN = TrainOptions(device="cpu")
TINY = SASRec(dim=8, hidden=12, max_seq_len=6, time_gaps=True, request_time=True)
QUICK = SASRec(dim=16, hidden=32, epochs=30, batch_size=128, learning_rate=0.01, average=0.9)


def history_of(lists: list[list[int]], times: list[list[float]] | None = None) -> History:
    counts = [len(one) for one in lists]
    items = np.array([item for one in lists for item in one], np.int32)
    when = None if times is None else np.array([second for one in times for second in one], np.float64)
    return History(np.cumsum([0, *counts]), items, np.ones(len(items), np.float32), when)


def chain(users: int = 60, items: int = 30) -> Dataset:
    """Everybody walks along the circle of items by steps of one, from a place of their own."""
    user, step = np.divmod(np.arange(users * 12), 12)
    item = (user * 7 + step) % items
    rows = Interactions(user.astype(np.int32), item.astype(np.int32), np.ones(len(user), np.float32), step * 60.0)
    return Dataset("chain", IdMap.of(np.arange(users)), IdMap.of(np.arange(items)), rows)


@pytest.fixture(scope="module")
def walked() -> SASRecModel:
    return QUICK.fit(chain(), RUN)


def best_new(model: SASRecModel, histories: list[list[int]]) -> list[int]:
    """The best item for each history that is not in it."""
    with torch.no_grad():
        scores = model.score(Query.new_users(histories))
    for row, history in enumerate(histories):
        scores[row, history] = -torch.inf
    best: list[int] = scores.argmax(1).tolist()
    return best


def tiny(seed: int = 0) -> SASRecModel:
    torch.manual_seed(seed)
    model = TINY.build(DataSpec(3, 9)).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    return model


def norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def slow_state(model: SASRecModel, items: list[int], times: list[float], at: float | None) -> np.ndarray:
    """The state behind the last event, event by event and head by head."""
    buckets = [
        np.floor(np.log2(1 + np.maximum(seconds, 0))).astype(int)
        for seconds in (np.diff(times, prepend=times[0]), np.diff(times, append=times[-1] if at is None else at))
    ]
    if at is None:
        buckets[1][-1] = 32
    x = model.item_table.weight.detach().numpy()[items] * np.sqrt(8)
    for table, bucket in zip((model.gap_table, model.wait_table), buckets, strict=True):
        assert table is not None
        x = x + table.weight.detach().numpy()[bucket]
    distance = model.distance.detach().numpy()
    width = x.shape[1] // len(distance)
    for block in model.blocks:
        qkv = linear(norm(x, block.first), block.qkv)
        q, k, v = np.split(qkv, 3, axis=1)
        mixed = np.zeros_like(x)
        for head in range(len(distance)):
            cut = slice(head * width, (head + 1) * width)
            for t in range(len(items)):
                logit = np.array([q[t, cut] @ k[s, cut] / np.sqrt(width) + distance[head, t - s] for s in range(t + 1)])
                share = np.exp(logit - logit.max())
                mixed[t, cut] = share / share.sum() @ v[: t + 1, cut]
        x = x + linear(mixed, block.out)
        x = x + linear(F.gelu(torch.from_numpy(linear(norm(x, block.second), block.wide))).numpy(), block.narrow)
    state: np.ndarray = norm(x, model.norm)[-1]
    return state


@pytest.mark.parametrize("at", [None, 1e6, 1.5e6, 0.9e6])  # a clock may be late: as if no time had passed
def test_states_equal_the_equation_written_out(at: float | None) -> None:
    model = tiny()
    items, times = [1, 5, 5, 0, 8], [0.0, 3.0, 3.0, 4000.0, 1e6]
    query = Query.of(
        [-1], history_of([items], [times]), None if at is None else torch.tensor([at], dtype=torch.float64)
    )
    with torch.no_grad():
        state = model.query_vectors(query)[0, :-1].numpy()
        scores = model.score(query)[0].numpy()
    expected = slow_state(model, items, times, at)
    np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-5)
    table, bias = model.item_table.weight.detach().numpy(), model.item_bias.detach().numpy()
    np.testing.assert_allclose(scores, table @ expected + bias, rtol=1e-4, atol=1e-4)


def test_packed_histories_know_nothing_of_each_other() -> None:
    model = tiny()
    parts = [[1, 2, 3], [4, 5], [6, 7, 8, 0, 2]]
    item = torch.tensor([[item for part in parts for item in part] + [0, 0]])
    segment = torch.tensor([[number for number, part in enumerate(parts) for _ in part] + [-1, -1]])
    model.distance = nn.Parameter(torch.randn(2, 12))
    with torch.no_grad():
        whole = model.encode(item, torch.zeros(1, 12), segment)[0]
        alone = [model.encode(torch.tensor([part]), torch.zeros(1, len(part)))[0] for part in parts]
    torch.testing.assert_close(whole[:10], torch.cat(alone), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 20), max_size=9), min_size=1, max_size=8),
    st.integers(1, 7),
    st.integers(1, 20),
    st.integers(0, 100),
)
def test_an_epoch_holds_every_event_once_with_what_followed_it(
    lists: list[list[int]], length: int, events: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    times = [sorted(rng.integers(0, 1000, len(one)).tolist()) for one in lists]
    found: list[tuple[int, int, float, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palate.models.sasrec.batches.WITHHELD", 0)
        batches = list(packed_rows(history_of(lists, times), length, events, np.random.default_rng(seed), ties=False))
    for batch in batches:
        assert batch.item.shape == batch.target.shape == batch.segment.shape == batch.gap.shape == batch.wait.shape
        assert batch.item.shape[1] <= length
        real = batch.segment >= 0
        assert (batch.target[~real] == -1).all()
        found += zip(*(part[real].tolist() for part in (batch.item, batch.target, batch.gap, batch.wait)), strict=True)
    expected = [
        (
            item,
            (*one[1:], -1)[place],
            float(np.diff(when, prepend=when[:1])[place]),
            (*np.diff(when).tolist(), -1)[place],
        )
        for one, when in zip(lists, times, strict=True)
        if len(one) > 1
        for place, item in enumerate(one)
    ]
    assert sorted(found) == sorted(expected)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=9).map(sorted), min_size=1, max_size=5), st.integers(0, 9)
)
def test_events_of_one_time_change_places_and_no_others(times: list[list[int]], seed: int) -> None:
    items = iter(range(10**6))
    lists = [[next(items) for _ in one] for one in times]
    history = history_of(lists, [[float(second) for second in one] for one in times])
    when = dict(zip(history.items.tolist(), [second for one in times for second in one], strict=True))
    (batch,) = packed_rows(history, 100, 100, np.random.default_rng(seed))
    for number in range(len(times)):
        row = batch.item[0][batch.segment[0] == number].tolist()
        assert sorted(row) in lists
        assert [when[item] for item in row] == sorted(when[item] for item in row)


def test_every_order_of_a_tie_comes_up_equally_often_and_one_wait_in_ten_is_withheld() -> None:
    users = 6_000
    history = history_of([[0, 1, 2, 3]] * users, [[0.0, 0.0, 0.0, 9.0]] * users)
    (batch,) = packed_rows(history, 4 * users, 4 * users, np.random.default_rng(0))
    row_U4 = batch.item.view(users, 4).numpy()
    assert (row_U4[:, 3] == 3).all()
    _, counts = np.unique(row_U4, axis=0, return_counts=True)
    assert len(counts) == 6
    assert abs(counts - 1_000).max() < 150
    wait_U4 = batch.wait.view(users, 4)
    assert (wait_U4[:, 3] == -1).all()
    assert (wait_U4[:, :3] == -1).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_shuffled_histories_keep_their_items() -> None:
    lists = [list(range(10)), list(range(10, 20))]
    (batch,) = packed_rows(history_of(lists), 20, 20, np.random.default_rng(0), 1.0)
    rows = [batch.item[0][batch.segment[0] == number].tolist() for number in (0, 1)]
    assert sorted(map(sorted, rows)) == lists
    assert sorted(rows) != lists


@pytest.mark.parametrize("banning", [False, True])
def test_the_chunked_softmax_equals_the_dense_one_with_its_gradients(banning: bool, monkeypatch) -> None:
    monkeypatch.setattr("palate.training.losses.CHUNK_CELLS", 40)  # three rows at once
    torch.manual_seed(0)
    x, table, bias = torch.randn(10, 4), torch.randn(13, 4), torch.randn(13)
    target, banned = torch.randint(0, 13, (10,)), torch.randint(0, 13, (10, 5)) if banning else None
    logit_mask = torch.zeros(10, 13)
    if banned is not None:
        logit_mask.scatter_(1, banned, -torch.inf)
        logit_mask[torch.arange(10), target] = 0
    results = []
    for dense in (True, False):
        leaves = [one.clone().requires_grad_() for one in (x, table, bias)]
        a, b, c = leaves
        loss = F.cross_entropy(a @ b.T + c + logit_mask, target) if dense else chunked_softmax(a, b, c, target, banned)
        (3 * loss).backward()
        results.append([loss.detach(), *(one.grad for one in leaves)])
    for slow, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow)


def test_bfloat16_changes_the_chunked_softmax_a_little() -> None:
    torch.manual_seed(0)
    x, table, bias, target = torch.randn(64, 16), torch.randn(99, 16), torch.zeros(99), torch.randint(0, 99, (64,))
    exact = chunked_softmax(x, table, bias, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = chunked_softmax(x, table, bias, target)
    assert exact != rough
    torch.testing.assert_close(rough, exact, rtol=0.01, atol=0)


def test_sampled_softmax_with_every_other_item_is_the_full_one() -> None:
    torch.manual_seed(0)
    logit, target = torch.randn(5, 8), torch.tensor([0, 7, 3, 3, 1])
    others = torch.stack([torch.tensor([i for i in range(8) if i != t]) for t in target.tolist()])
    sampled = sampled_softmax(logit.gather(1, target[:, None])[:, 0], logit.gather(1, others), 8)
    torch.testing.assert_close(sampled, F.cross_entropy(logit, target))


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_gbce_equals_its_equation(t: float) -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(4, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    alpha = 3 / 20
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    sigmoid = 1 / (1 + np.exp(-positive.numpy()))
    inverse = 1 - 1 / (1 + np.exp(-negative.numpy()))
    slow = -np.mean(np.log(sigmoid**beta) + np.log(inverse).sum(1)) / 4
    np.testing.assert_allclose(gbce(positive, negative, 21, t).item(), slow)


def test_gbce_starts_where_scores_without_a_history_are_best() -> None:
    count = torch.tensor([5_000, 2_000, 500, 250, 2_250])
    score = gbce_prior(count, 3, 0.75)
    # An event has three uniform negatives: each item is one of 3 / 5 of them.
    beta = 3 / 4 * (0.75 * (1 - 4 / 3) + 4 / 3)
    up, down = beta * count * torch.sigmoid(-score), 3 / 5 * count.sum() * torch.sigmoid(score)
    torch.testing.assert_close(up, down, rtol=0.01, atol=0)
    assert gbce_prior(torch.full((4_000,), 20), 256, 0.75).max() < -5


def test_gbce_learns_more_than_popularity_in_a_short_training() -> None:
    split = leave_one_out(World(600, 1_200, events=8, tail=0.5).dataset())
    fast = replace(SASRec.fast(), epochs=8, batch_size=256)
    values = {
        one: evaluate(replace(fast, objective=one).fit(split.train), split, resamples=0).value("NDCG", 10)
        for one in ("sampled-softmax", "gbce")
    }
    popular = evaluate(Popularity().fit(split.train), split, resamples=0).value("NDCG", 10)
    assert values["gbce"] > 0.9 * values["sampled-softmax"] > 1.5 * popular


@pytest.mark.parametrize("objective", ["softmax", "sampled-softmax", "gbce"])
def test_every_loss_learns_the_order(objective: str) -> None:
    recipe = replace(QUICK, objective=objective, negatives=16, epochs=60, init_std=0.2)  # type: ignore[arg-type]
    model = recipe.fit(chain(), RUN)
    assert best_new(model, [[5, 6, 7, 8], [20, 21, 22], [28, 29, 0, 1]]) == [9, 23, 2]


def test_seen_items_stay_low_where_they_are_not_masked() -> None:
    model = replace(QUICK, mask_seen=False).fit(chain(), RUN)
    with torch.inference_mode():
        assert model.score(Query.new_users([[5, 6, 7, 8], [20, 21, 22]])).argmax(1).tolist() == [9, 23]


def test_a_live_click_counts_at_once(walked: SASRecModel) -> None:
    assert best_new(walked, [[3, 4], [3, 4, 5]]) == [5, 6]


def test_who_a_user_is_does_not_matter_only_the_history(walked: SASRecModel) -> None:
    history = history_of([[1, 2, 3]] * 3)
    with torch.inference_mode():
        rows = walked.score(Query.of([-1, 0, 10**6], history))
        torch.testing.assert_close(rows, rows[:1].expand_as(rows))


def test_without_a_history_everybody_gets_the_mean_state(walked: SASRecModel) -> None:
    nothing, disliked = Query.of([0, -1]), Query.new_users([[4, 5], []], weight=-1.0)
    for query in (nothing, disliked):
        assert not walked.can_personalize(query).any()
        vectors = walked.query_vectors(query)
        torch.testing.assert_close(vectors, torch.cat([walked.typical, torch.ones(1)]).expand(2, -1))
    assert walked.typical.abs().sum() > 0


def test_dislikes_and_what_lies_before_the_window_are_not_read() -> None:
    model = tiny()
    rows = history_of([[7, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [1, 2, 3, 8, 4, 5, 6]])
    rows.weights[-4] = -1.0
    with torch.inference_mode():
        long, short, disliked = model.score(Query.of([-1] * 3, rows))
    torch.testing.assert_close(long, short)
    torch.testing.assert_close(disliked, short)


def test_time_gaps_matter_only_where_they_are_read() -> None:
    rows = history_of([[1, 2, 3]] * 2, [[0.0, 1.0, 2.0], [0.0, 1.0, 90_000.0]])
    torch.manual_seed(0)
    blind = replace(TINY, time_gaps=False).build(DataSpec(3, 9)).eval()
    with torch.inference_mode():
        quick, slow = tiny().score(Query.of([-1, -1], rows))
        assert not torch.allclose(quick, slow)
        quick, slow = blind.score(Query.of([-1, -1], rows))
        torch.testing.assert_close(quick, slow)


def waiting(users: int = 200) -> Dataset:
    """What follows depends on the time that passes: soon the next item of the circle, later the one before.

    Each user has eight events among 20 items and comes back after a second or after a day, half of them each.
    """
    rng = np.random.default_rng(0)
    late_UL = rng.random((users, 8)) < 0.5
    item_UL = (rng.integers(0, 20, (users, 1)) + np.where(late_UL, -1, 1).cumsum(1)) % 20
    time_UL = np.where(late_UL, 86_400.0, 1.0).cumsum(1)
    user = np.repeat(np.arange(users, dtype=np.int32), 8)
    item, time = item_UL.ravel().astype(np.int32), time_UL.ravel()
    rows = Interactions(user, item, np.ones(len(user), np.float32), time)
    return Dataset("waiting", IdMap.of(np.arange(users)), IdMap.of(np.arange(20)), rows)


WAITS = replace(QUICK, request_time=True, mask_seen=False, epochs=25)


@pytest.fixture(scope="module")
def waits() -> tuple[Split, SASRecModel]:
    parts = leave_one_out(waiting())
    return parts, WAITS.fit(parts.train, RUN)


def test_the_time_of_request_decides_where_it_says_what_comes_next(
    waits: tuple[Split, SASRecModel], tmp_path: Path
) -> None:
    parts, model = waits
    history = history_of([[5, 6, 7]] * 3, [[0.0, 1.0, 2.0]] * 3)
    soon_or_late = torch.tensor([3.0, 86_402.0, 86_402.0 * 1.2], dtype=torch.float64)
    with torch.inference_mode():
        assert model.score(Query.of([-1] * 3, history, soon_or_late)).argmax(1).tolist() == [8, 6, 6]
        unknown = model.score(Query.of([-1], history.select(np.array([0]))))[0]
    assert {6, 8} < set(unknown.topk(4).indices.tolist())  # withheld in training now and then: both are possible
    Bundle.of(WAITS, model, parts.train).save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle").recommender.model
    with torch.inference_mode():
        query = Query.of([-1] * 3, history, soon_or_late)
        assert torch.equal(loaded.score(query), model.score(query))


def test_only_models_that_read_it_are_told_when_people_come_back_and_the_report_says_so(
    waits: tuple[Split, SASRecModel],
) -> None:
    parts, told = waits
    blind = replace(WAITS, request_time=False).fit(parts.train, RUN)
    reports = [evaluate(model, parts, k=1, exclude_seen=False, resamples=0) for model in (told, blind)]
    assert reports[0].value("HitRate", 1) > 0.95
    assert reports[1].value("HitRate", 1) < 0.7
    assert reports[0].protocol == f"{parts.how}; each user asked at the time of the first held-out row"
    assert reports[1].protocol == parts.how
    assert reports[0].rows()[0]["protocol"] == reports[0].protocol


def test_a_blend_reads_the_time_of_request_if_a_member_does() -> None:
    parts = leave_one_out(waiting())
    sequence = {"recipe": "sasrec", **vars(replace(WAITS, epochs=2))}
    for members, reads in (((sequence, "popularity"), True), (("popularity", "ease"), False)):
        model = Ensemble(members=members, weights=(1, 0.1)).fit(parts.train, RUN)
        assert model.reads_request_time is reads
        assert ("asked at the time" in evaluate(model, parts, resamples=0).protocol) is reads


def test_what_lies_between_two_events_is_counted_without_the_dislikes() -> None:
    model = tiny()
    rows = history_of([[1, 2, 3], [1, 3]], [[0.0, 100.0, 5000.0], [0.0, 5000.0]])
    rows.weights[1] = -1.0
    with torch.inference_mode():
        disliked, without = model.score(Query.of([-1, -1], rows))
    torch.testing.assert_close(disliked, without)


def test_items_without_rows_are_known_by_their_features(tmp_path: Path) -> None:
    walk, places = chain(), 12
    rows = replace(walk.interactions, item=walk.interactions.item % places)
    shades = pl.DataFrame({"place": [str(item % places) for item in range(30)], "size": [0.5] * 30})
    data = replace(walk, interactions=rows, item_features=shades)
    recipe = replace(QUICK, item_features=("place", "size:numeric"), dropout=0.3)
    model = recipe.fit(data, RUN)
    assert model.features is not None
    assert model.features.known.tolist() == [True] * 12 + [False] * 18
    # Item 12 + n is the twin of item n: as good as it in lists, and read like it in histories.
    with torch.inference_mode():
        state = model.query_vectors(Query.new_users([[2, 3], [14, 15], [5, 6]]))[:, :-1]
    near = F.normalize(state, dim=1) @ F.normalize(state, dim=1).T
    assert near[0, 1] > near[0, 2]
    twins = model.table().detach()
    assert (F.cosine_similarity(twins[12:24], twins[:12]) > 0.5).all()
    Bundle.of(recipe, model, data).save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle").recommender.model
    assert torch.equal(loaded.score(Query.new_users([[14, 15]])), model.score(Query.new_users([[14, 15]])))


def test_all_item_features_of_a_data_set_without_any_are_none() -> None:
    model = replace(QUICK, item_features=("*",), epochs=1).fit(chain(), RUN)
    assert torch.isfinite(model.score(Query.new_users([[0, 1]]))).all()


def test_training_goes_on_from_a_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    recipe = replace(QUICK, epochs=3)
    recipe.fit(chain(), replace(RUN, folder=tmp_path))
    label = json.loads((tmp_path / "run.json").read_text())
    label["fields"]["epochs"] = 5  # the folder's run is asked to go on
    (tmp_path / "run.json").write_text(json.dumps(label))
    longer = replace(recipe, epochs=5)
    epochs: list[int] = []
    resumed = longer.fit(chain(), replace(RUN, folder=tmp_path, progress=lambda event: epochs.append(event.done - 1)))
    straight = longer.fit(chain(), RUN)
    assert epochs == [3, 4]
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_watch_sees_the_averaged_model_and_the_best_one_is_kept() -> None:
    states: list[torch.Tensor] = []

    def validation_callback(model: SASRecModel) -> float:
        assert isinstance(model, SASRecModel)
        states.append(model.item_table.weight.clone())
        return [0.2, 0.5, 0.1][len(states) - 1]

    model = replace(QUICK, epochs=3).fit(chain(), replace(RUN, validation_callback=validation_callback))
    assert torch.equal(model.item_table.weight, states[1])


def test_the_average_follows_the_weights() -> None:
    module = Averaged(nn.Linear(2, 2), decay=0.5)
    start = module.net.weight.detach().clone()
    with torch.no_grad():
        module.net.weight += 1
    module.step()  # the first step moves by nine tenths
    torch.testing.assert_close(module.average.weight, start + 0.9)
    assert not module.average.weight.requires_grad


def test_byte_dropout_keeps_the_mean_and_is_off_in_eval_mode() -> None:
    torch.manual_seed(0)
    drop, ones = ByteDropout(0.3), torch.ones(1000, 333)
    once = drop(ones)
    assert once.unique().tolist() == pytest.approx([0, 256 / (256 - 77)])
    assert once.mean().item() == pytest.approx(1, abs=0.01)
    assert (once == 0).float().mean(0).std() < 0.03  # no column is favored
    assert torch.equal(drop.eval()(ones), ones)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dim", 0, "dim=0: must be at least 1"),
        ("heads", 3, "dim=64 with heads=3"),
        ("dropout", 1.0, "dropout=1.0"),
        ("learning_rate", 0, "learning_rate=0"),
        ("gbce_t", 1.5, "gbce_t=1.5"),
        ("max_seq_len", 0, "max_seq_len=0"),
    ],
)
def test_senseless_fields_are_refused(field: str, value: float, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        replace(SASRec(), **{field: value})  # type: ignore[arg-type]


def test_histories_of_one_event_teach_nothing_and_say_so() -> None:
    ids = IdMap.of(np.arange(4))
    rows = Interactions(np.arange(4, dtype=np.int32), np.arange(4, dtype=np.int32), np.ones(4, np.float32))
    with pytest.raises(RecipeError, match="4 rows, no user has more than one"):
        QUICK.fit(Dataset("single", ids, ids, rows), RUN)


@pytest.mark.slow
def test_a_few_epochs_beat_popularity_on_real_data(ml_100k_loo: Split) -> None:
    model = replace(SASRec.fast(), epochs=3).fit(ml_100k_loo.train, RUN)
    ours = evaluate(model, ml_100k_loo, resamples=0).value("NDCG", 10)
    assert ours > 1.3 * evaluate(Popularity().fit(ml_100k_loo.train), ml_100k_loo, resamples=0).value("NDCG", 10)
