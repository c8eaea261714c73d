"""The explicit list of recipes. A new recipe is one file and one line here; the contract tests then cover it."""

from __future__ import annotations

from palate.models.bidirectional_sasrec import BidirectionalSASRec
from palate.models.bmf import BMF
from palate.models.ease import EASE
from palate.models.edlae import EDLAE, RecentEDLAE
from palate.models.ensemble import Ensemble
from palate.models.feature_ials import FeatureIALS
from palate.models.graph_filter import GFCF
from palate.models.ials import IALS, WALS
from palate.models.item_knn import ItemKNN
from palate.models.means import MeanRating, UserItemMeans
from palate.models.mf import MF
from palate.models.neumf import GMF, MLP, NeuMF
from palate.models.popularity import Newest, Popularity, RecentPopularity
from palate.models.registry import RECIPES, as_recipe, as_table, make_recipe
from palate.models.sampled_mf import BPR, LogisticMF
from palate.models.sasrec import SASRec
from palate.models.sparse_ease import SparseEASE
from palate.models.svdpp import SVDpp
from palate.models.two_stage import TwoStage
from palate.models.two_tower import TwoTower

__all__ = [
    "BMF",
    "BPR",
    "EASE",
    "EDLAE",
    "GFCF",
    "GMF",
    "IALS",
    "MF",
    "MLP",
    "RECIPES",
    "WALS",
    "BidirectionalSASRec",
    "Ensemble",
    "FeatureIALS",
    "ItemKNN",
    "LogisticMF",
    "MeanRating",
    "NeuMF",
    "Newest",
    "Popularity",
    "RecentEDLAE",
    "RecentPopularity",
    "SASRec",
    "SVDpp",
    "SparseEASE",
    "TwoStage",
    "TwoTower",
    "UserItemMeans",
    "as_recipe",
    "as_table",
    "make_recipe",
]

RECIPES.update(
    (recipe.name, recipe)
    for recipe in (
        Popularity,
        RecentPopularity,
        Newest,
        ItemKNN,
        EASE,
        SparseEASE,
        GFCF,
        EDLAE,
        RecentEDLAE,
        IALS,
        FeatureIALS,
        WALS,
        BPR,
        LogisticMF,
        GMF,
        MLP,
        NeuMF,
        TwoTower,
        SASRec,
        BidirectionalSASRec,
        MeanRating,
        UserItemMeans,
        MF,
        SVDpp,
        BMF,
        Ensemble,
        TwoStage,
    )
)
