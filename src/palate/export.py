"""Export: a fitted model for programs without Palate, as vectors in files and as an ONNX graph.

    export_vectors(recommender, "vectors")    # users.parquet and items.parquet: an id and its vector in each row
    export_onnx(recommender, "onnx")          # query.onnx (or score.onnx), model.json and the same tables

A model whose score is a dot product is exported as the graph of its query vector: the score of an item is the product
with the item's vector, so lists come from a matrix product or from a vector database. A model that scores pairs (GMF,
MLP, NeuMF) is exported as the graph of its scores. A graph covers users with training rows, histories (SASRec) and
features of new users (two-tower). The fold-in of other histories solves equations or runs an optimizer for each user,
and stays in Palate.

Shape legend: B users, L events, C candidates, S code slots, F numbers, N rows of a table, D width.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import asdict
from functools import singledispatch
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate import storage
from palate.base import ItemVectors, Query, Vectors, reads_ratings
from palate.errors import ModelError
from palate.models.dot_product import DotProductModel
from palate.models.neumf import NCFModel
from palate.models.sasrec.network import SASRecModel
from palate.models.two_tower_network import TwoTowerModel
from palate.recommend.state import State

__all__ = ["Format", "export_onnx", "export_vectors"]

Format = Literal["parquet", "numpy"]
OPSET = 18
LARGEST = 2_000_000_000  # bytes of tensors; the format ends at 2 GiB
USERS_AT_ONCE = 4096
CHECKED = 16  # users for whom the answers of a graph are compared with those of the model
MEANINGS = {
    "user": "row of users.parquet (0 is the first); -1 for a user without training rows",
    "codes": "feature codes of a user without training rows, 0 in empty slots; zeros for other users",
    "weights": "weights of the codes",
    "numbers": "standardized numeric features",
    "item": "rows of items.parquet (0 is the first)",
    "length": "events of the history; places behind them may hold any row",
    "gap": "seconds since the event before, 0 for the first",
    "wait": "seconds until the next event or the request, below 0 where unknown",
}


class Graph(NamedTuple):
    """A network to export: inputs by name, the axes of the inputs that vary beside the first, and the model's answer.

    The output is named by what it holds: "vector" or "score".
    """

    network: nn.Module
    inputs: dict[str, Tensor]
    varies: dict[str, str]
    output: str
    answer: Tensor


def export_vectors(state: State, folder: str | Path, format: Format = "parquet") -> list[Path]:
    """Write the vectors of items and users, one row per id in the order of the model's row numbers.

    Args:
        state: a recommender.
        folder: made if need be; files of the same names are replaced.
        format: "parquet" writes ``items.parquet`` (item_id, title where known, vector) and ``users.parquet`` (user_id,
            vector); "numpy" writes the tables without vectors, and these as float32 arrays (N, D) to ``items.npy`` and
            ``users.npy``. Default: "parquet".

    Returns:
        The files. ``users.parquet`` has no vectors where the score is not a dot product (item-knn, NeuMF).

    Raises:
        ModelError: the model has no item vectors.
    """
    model: object = state.model
    folder = Path(folder)
    if not isinstance(model, ItemVectors):
        raise ModelError(
            f"{type(model).__name__} has no item vectors to export: fit ials, two-tower, sasrec or another such recipe"
        )
    items, users = pl.DataFrame({"item_id": state.items.ids}), pl.DataFrame({"user_id": state.users.ids})
    tables: list[tuple[str, pl.DataFrame, Tensor | None]] = [("users", users, None)]
    with torch.inference_mode():
        if isinstance(model, Vectors):
            every = reads_ratings(model)
            parts = torch.arange(len(users)).split(USERS_AT_ONCE)
            queries = (Query.of(part, state.seen.select(part.numpy()), every_event=every) for part in parts)
            tables = [("users", users, torch.cat([model.query_vectors(one.to(state.device)).cpu() for one in queries]))]
        items = items if state.titles is None else items.with_columns(title=state.titles)
        tables.append(("items", items, model.item_vectors().cpu()))
    written = []
    for name, table, vector_ND in tables:
        column = {}
        if vector_ND is not None and format == "parquet":
            kind = pl.Array(pl.Float32, vector_ND.shape[1])
            column["vector"] = pl.Series(vector_ND.float().numpy(), dtype=kind)
        elif vector_ND is not None:
            written.append(folder / f"{name}.npy")
            with storage.replacing(written[-1]) as path, path.open("wb") as file:
                np.save(file, vector_ND.float().numpy())
        written.append(folder / f"{name}.parquet")
        with storage.replacing(written[-1]) as path:
            table.with_columns(**column).write_parquet(path)
    return written


def export_onnx(state: State, folder: str | Path) -> list[Path]:
    """Write the network of a model as an ONNX graph, after comparing its answers for some users with the model's.

    ``query.onnx`` gives query vectors (B, D), whose products with the vectors of ``items.parquet`` are scores;
    ``score.onnx`` gives scores (B, C) of candidates. ``model.json`` describes the inputs and, of a two-tower model, the
    encoding of user features. The tables are those of ``export_vectors``.

    Args:
        state: a recommender.
        folder: made if need be; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ModelError: there is no graph of this kind of model, the graph answers other numbers than the model, or the
            packages of ``palate[onnx]`` are missing.
    """
    try:
        import onnx  # noqa: F401, imported by torch's exporter, which does not name the extra
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModelError(f"the export to ONNX needs {error.name}: pip install 'palate[onnx]'") from None
    folder, name = Path(folder), type(state.model).__name__
    model = cast(nn.Module, state.model)
    if state.device.type != "cpu":
        model = copy.deepcopy(model).cpu()  # the recommender keeps its model where it is
    size = sum(tensor.nbytes for tensor in model.state_dict().values() if isinstance(tensor, Tensor))
    if size > LARGEST:
        raise ModelError(f"{name} holds {size:,} bytes, an ONNX file at most {LARGEST:,}: export the vectors instead")
    with torch.inference_mode():
        graph = graph_of(model, state)
    path = folder / ("score.onnx" if graph.output == "score" else "query.onnx")
    axes = {one: {0: "users", 1: graph.varies[one]} if one in graph.varies else {0: "users"} for one in graph.inputs}
    with storage.replacing(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing: the comparison below finds a graph that is wrong
            torch.onnx.export(
                graph.network.eval(),
                tuple(graph.inputs.values()),
                str(temporary),
                # The exporter by torch.export takes ten times as long and two more packages for the same graph.
                dynamo=False,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=[graph.output],
                dynamic_axes={**axes, graph.output: axes["item"] if graph.output == "score" else {0: "users"}},
            )
        session = onnxruntime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {one: tensor.numpy() for one, tensor in graph.inputs.items()})
        wanted = graph.answer.numpy()
        if not np.allclose(found, wanted, rtol=1e-3, atol=1e-4 * (float(np.abs(wanted).max()) + 1e-6)):
            raise ModelError(
                f"the graph of {name} differs from the model by {np.abs(found - wanted).max():.2g} and is not written: "
                "export the vectors instead"
            )
    about: dict[str, Any] = {
        "model": name,
        "data": state.name,
        "inputs": {
            one: {
                "type": str(tensor.dtype).removeprefix("torch."),
                "shape": [axes[one].get(place, size) for place, size in enumerate(tensor.shape)],
                "meaning": MEANINGS[one],
            }
            for one, tensor in graph.inputs.items()
        },
        "output": graph.output,
    }
    if "codes" in graph.inputs:
        about["features"] = [asdict(column) for column in cast(TwoTowerModel, model).user_tower.table.columns]
    storage.write_json(folder / "model.json", about)
    return [path, folder / "model.json", *export_vectors(state, folder)]


@singledispatch
def graph_of(model: nn.Module, state: State) -> Graph:
    """The graph of a model, with some users of the recommender as example.

    Raises:
        ModelError: there is none of this kind of model.
    """
    raise ModelError(
        f"{type(model).__name__} cannot be exported to ONNX: two-tower, gmf, mlp, neumf, sasrec and models with a "
        "vector per user (ials, bpr, mf and others) can"
    )


def _some_users(state: State) -> Tensor:
    """Row numbers of users with the most training rows, the average user (-1) last."""
    return torch.from_numpy(np.append(np.argsort(-state.seen.counts, kind="stable")[: CHECKED - 1], -1))


class _UserVectors(nn.Module):
    def __init__(self, model: DotProductModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, user_B: Tensor) -> Tensor:
        model = self.model
        row_B = user_B.clamp(0, model.user_table.num_embeddings - 1)
        known_B = model.trained[row_B] & (row_B == user_B)
        vector_BD = model.user_table(row_B).where(known_B[:, None], model.typical)
        return torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1) if model.bias else vector_BD


@graph_of.register
def _(model: DotProductModel, state: State) -> Graph:
    user_B = _some_users(state)
    return Graph(_UserVectors(model), {"user": user_B}, {}, "vector", model.query_vectors(Query(user_B)))


class _PairScores(nn.Module):
    def __init__(self, model: NCFModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, user_B: Tensor, item_BC: Tensor) -> Tensor:
        model = self.model
        row_B = user_B.clamp(0, model.user_table.num_embeddings - 1)
        user_BD = model.user_table(row_B).where((row_B == user_B)[:, None], model.user_mean)
        return model.pairs(user_BD, model.item_table(item_BC))


@graph_of.register
def _(model: NCFModel, state: State) -> Graph:
    user_B = _some_users(state)
    item_BC = torch.arange(len(user_B) * 5).reshape(len(user_B), 5) % model.items
    inputs = {"user": user_B, "item": item_BC}
    return Graph(_PairScores(model), inputs, {"item": "candidates"}, "score", model.score(Query(user_B), item_BC))


class _UserTower(nn.Module):
    def __init__(self, model: TwoTowerModel) -> None:
        super().__init__()
        self.tower, self.mean, self.bias = model.user_tower, model.user_mean, model.item_bias is not None

    def forward(
        self,
        user_B: Tensor,
        code_BS: Tensor | None = None,
        weight_BS: Tensor | None = None,
        number_BF: Tensor | None = None,
    ) -> Tensor:
        tower = self.tower
        row_B = user_B.where((user_B >= 0) & (user_B < tower.rows), tower.rows)
        known_B = tower.known[row_B]
        code_BS, weight_BS, number_BF = (
            table[row_B] if given is None else table[row_B].where(known_B[:, None], given)
            for table, given in ((tower.codes, code_BS), (tower.weights, weight_BS), (tower.numbers, number_BF))
        )
        vector_BD = tower.ids(row_B.where(known_B, tower.rows))
        if tower.table.codes:
            # The tower's EmbeddingBag, written out: ONNX has no such operator.
            code_BSD = F.embedding(code_BS.long(), tower.values.weight)
            vector_BD = vector_BD + (code_BSD * (weight_BS * (code_BS > 0))[:, :, None]).sum(1)
        if tower.table.numbers:
            vector_BD = vector_BD + tower.linear(number_BF)
        answered_B = known_B | (code_BS > 0).any(1) | (number_BF != 0).any(1)
        vector_BD = cast(Tensor, tower.deep(vector_BD)).where(answered_B[:, None], self.mean)
        return torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1) if self.bias else vector_BD


@graph_of.register
def _(model: TwoTowerModel, state: State) -> Graph:
    user_B, tower = _some_users(state), model.user_tower
    inputs, features = {"user": user_B}, None
    if tower.table.columns and state.user_features is not None:
        # The same users again as new ones, known by their features alone.
        inputs = {"user": torch.cat([user_B, torch.full_like(user_B, -1)])}
        features = state.user_features[np.tile(user_B.numpy().clip(0), 2)]
        facts = tower.encode(features)
        inputs |= {"codes": facts.codes.long(), "weights": facts.weights, "numbers": facts.numbers}
    answer = model.query_vectors(Query(inputs["user"], features=features))
    return Graph(_UserTower(model), inputs, {}, "vector", answer)


class _History(nn.Module):
    def __init__(self, model: SASRecModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, item_BL: Tensor, length_B: Tensor, *seconds_BL: Tensor) -> Tensor:
        model, given = self.model, iter(seconds_BL)
        gap_BL = torch.zeros_like(item_BL, dtype=torch.float32) if model.gap_table is None else next(given)
        wait_BL = None if model.wait_table is None else next(given)
        state_BLD = model.encode(item_BL, gap_BL, None, wait_BL)
        last_B11 = (length_B - 1).clamp(min=0)[:, None, None].expand(-1, -1, state_BLD.shape[2])
        vector_BD = state_BLD.gather(1, last_B11)[:, 0].where(length_B[:, None] > 0, model.typical)
        return torch.cat([vector_BD, torch.ones_like(vector_BD[:, :1])], 1)


@graph_of.register
def _(model: SASRecModel, state: State) -> Graph:
    user_B = _some_users(state)
    history = state.seen.select(user_B.numpy()).positives()
    answer = model.query_vectors(Query.of(user_B, history))
    if model.features is not None:
        # One table instead of ids and features, whose sums ONNX has no operator for.
        table_ID, model = model.table().clone(), copy.deepcopy(model)
        model.item_table, model.features = nn.Embedding.from_pretrained(table_ID), None
    length_B = torch.from_numpy(history.counts.clip(max=model.max_seq_len))
    place_BL = torch.arange(max(1, int(length_B.max())))
    # The latest events; places behind them repeat the last.
    first_B = torch.from_numpy(history.offsets[1:]) - length_B
    event_BL = (first_B[:, None] + place_BL.minimum((length_B - 1).clamp(min=0)[:, None])).clamp(
        0, len(history.items) - 1
    )
    inputs = {"item": torch.from_numpy(history.items.astype(np.int64))[event_BL], "length": length_B}
    time_H = torch.zeros(len(history.items)) if history.times is None else torch.from_numpy(history.times)
    step_H = torch.cat([time_H.new_zeros(1), time_H.diff()]).float()
    if model.gap_table is not None:
        start_BL = event_BL == torch.from_numpy(history.offsets[:-1])[:, None]
        inputs["gap"] = step_H[event_BL].masked_fill(start_BL, 0)
    if model.wait_table is not None:
        last_BL = event_BL == torch.from_numpy(history.offsets[1:])[:, None] - 1
        inputs["wait"] = step_H.roll(-1)[event_BL].masked_fill(last_BL | (history.times is None), -1)
    varies = dict.fromkeys(("item", "gap", "wait"), "events")
    return Graph(_History(model), inputs, varies, "vector", answer)
