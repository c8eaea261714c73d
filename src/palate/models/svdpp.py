"""SVD++: matrix factorization of ratings with implicit feedback (Koren 2008, "Factorization Meets the Neighborhood").

    rating(u, i) = mean + b_u + b_i + q_i . (p_u + |N(u)|^-1/2 sum_{j in N(u)} y_j)            (eq. 15)

    sum over ratings of e^2, plus L2 of p, q and b as in ``mf``, twice as strong for p, plus 2 l_j |y_j|^2 for each
    item, l_j being the mean L2 in ``mf`` of the users who touched j

N(u) are the items that the user touched: the training rows, and rows without a rating where they are given (of the
anime data the rows rated -1, watched but not rated). With its L2, |N(u)|^-1/2 times the sum of y varies as much as p_u,
also where each item has one user: with less, users with many rare items overfit. Trained by Adam; the sum over N(u) is
taken once per user of a batch. The fitted user vector has the sum in it, and scoring is a dot product.

The strengths, the size of the batches and the learning rate are taken from the data unless they are set, as in ``mf``
(see ``rating_prior``). Implicit data are learned as ratings of 1 against n unseen items drawn as ratings of 0.

Fold-in of a new user: p_u and b_u by ridge regression on the item vectors, around the sum of y over the user's history
(see ``rating_factors``). On implicit data the trained users end with the same regression: it weighs the zeros of the
whole catalog, where training has shown p_u and b_u a sample, and ranks better.

Memory of a step is K numbers per touched item of the batch's users.

Shape legend: N ratings of a batch of G users, I items, K width, d = K + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from palate.base import Batch, DataSpec, TrainOptions, as_dataset, overflow_explained
from palate.data.dataset import Dataset, History, Interactions
from palate.errors import ModelError
from palate.models.rating_factors import RatingFactors, RatingRecipe, RidgeFoldIn, rating_batches, ratings_of
from palate.models.rating_prior import MOST_BATCH, RATE, Floats
from palate.training import trainer as training
from palate.training.negative_sampling import report_users_without_negatives
from palate.training.optimizers import decaying

PARTS = 2.0  # p_u and the sum of y share the prior variance that p_u has alone in ``mf``


class _BagSums(torch.autograd.Function):
    """Sums of table rows (I, E) over G bags, (G, E): ``embedding_bag`` with a faster gradient.

    The gradient of a row is the sum over the bags it is in: the same operation on the bags turned around.
    """

    @staticmethod
    def forward(ctx: Any, table_IE: Tensor, items: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(items, offsets)
        ctx.rows = len(table_IE)
        return F.embedding_bag(items, table_IE, offsets, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        items, offsets = ctx.saved_tensors
        # Turned around, the bags of an item are adjacent: a sum per item instead of scattered additions.
        ordered, place = items.sort(stable=True)
        bag = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=items.device), offsets.diff())[place]
        starts = torch.searchsorted(ordered, torch.arange(ctx.rows + 1, device=items.device))
        turned = F.embedding_bag(bag, gradients[0].contiguous(), starts, mode="sum", include_last_offset=True)
        return turned, None, None


class SVDppModel(RatingFactors):
    """Rating factors and the parts of the user vectors: ``own`` is [p_u ; b_u], ``touched`` is y.

    ``user_table`` holds the sums, as they were when each user was last trained on, and exactly after training.
    """

    def __init__(self, spec: DataSpec, dim: int) -> None:
        super().__init__(spec, dim, RidgeFoldIn(spec, dim, linked=True))
        self.own = nn.Parameter(self.user_table.weight.detach().clone())
        # Composed of the two parts in each step, never learned itself.
        self.user_table.requires_grad_(False)
        self.touched = nn.Parameter(0.01 * torch.randn(spec.items, dim))
        # While training: N(u), and the users of each item in it, (I, 1).
        self.history: History | None = None
        self.shared_I1 = torch.ones(spec.items, 1)

    def start_biases(self, user_bias: Floats, item_bias: Floats) -> None:
        """Set the biases that training starts from."""
        super().start_biases(user_bias, item_bias)
        self.own.data[:, self.width] = torch.from_numpy(user_bias)

    def compose(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """User vectors (G, d), and the sum of |y_j|^2 over each N(u), each shared by its users, (G,)."""
        if self.history is None:
            raise ModelError("SVD++ is trained with the items that each user touched: use SVDpp.fit")
        chosen = self.history.select(users.cpu().numpy())
        items = torch.from_numpy(chosen.items.astype(np.int64)).to(users.device)
        offsets = torch.from_numpy(chosen.offsets).to(users.device)
        count_G1 = offsets.diff().clamp(min=1)[:, None]
        # As one more column of the table, so that one pass over the bags sums vectors and lengths.
        squared_I1 = self.touched.square().sum(1, keepdim=True) / self.shared_I1
        table_IE = torch.cat([self.touched, squared_I1], 1)
        sum_GE = cast(Tensor, _BagSums.apply(table_IE, items, offsets))  # type: ignore[no-untyped-call]
        vector_Gd = self.own[users] + F.pad(sum_GE[:, :-1] / count_G1.sqrt(), (0, 1))
        length_G = sum_GE[:, -1]
        with torch.no_grad():
            self.user_table.weight[users] = vector_Gd
        return vector_Gd, length_G


@dataclass(frozen=True)
class SVDpp(RatingRecipe[SVDppModel]):
    """Matrix factorization of ratings with implicit feedback; its fields are those of ``RatingRecipe``."""

    name: ClassVar[str] = "svdpp"

    @classmethod
    def fast(cls) -> Self:
        """Fewer epochs."""
        return cls(epochs=12)

    def build(self, spec: DataSpec) -> SVDppModel:
        """Random vectors of the right sizes, zero biases."""
        return SVDppModel(spec, self.dim)

    def fit(
        self, train: Dataset | Any, options: TrainOptions = TrainOptions(), unrated: Interactions | None = None
    ) -> SVDppModel:
        """Learn from the ratings of ``train``.

        Args:
            train: the ratings.
            options: training options.
            unrated: rows without a rating, of the same maps: they count as implicit feedback.
        """
        whole = as_dataset(train)
        rows = self.training_rows(whole)
        with overflow_explained(self.name, rows):
            model = self._for_rows(rows)._trained(rows, options, unrated)
        model.trained_on = whole.fingerprint
        return model

    def _trained(self, train: Dataset, options: TrainOptions, unrated: Interactions | None) -> SVDppModel:
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            model = self.build(DataSpec(train.n_users, train.n_items))
        if not train.explicit:
            report_users_without_negatives(train, self.name, options.progress)
        ratings = ratings_of(train, self.negatives, options.seed)
        model.set_scale(ratings)
        self.begin(model, ratings, 0 if train.explicit else self.negatives)
        model.history = _touched(train, unrated)
        counts = np.bincount(model.history.items, minlength=train.n_items)
        model.shared_I1 = torch.from_numpy(np.maximum(counts, 1).astype(np.float32))[:, None]
        training.fit(self, train, options, model)
        with torch.no_grad():
            for users in torch.arange(train.n_users).split(1 << 14):
                model.compose(users)
            assert model.fold_in.link is not None
            model.fold_in.link[:, 0] = F.pad(model.touched, (0, 1))
        model.history = None
        model.settle(train, self.negatives)
        model.fold_in.center.copy_(model.own[model.trained].mean(0).detach())
        if not train.explicit:
            model.refold(train)
        return model

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Ratings in random order: user, item and target (N,); negatives are redrawn in each epoch."""
        return rating_batches(train, self.negatives, self.batch_size or MOST_BATCH, seed, epoch)

    def loss(self, module: Any, batch: Batch) -> Tensor:
        """Mean squared error of the batch plus the L2 of the vectors behind each rating."""
        k = self.dim
        users, member_N = batch.user.unique(return_inverse=True)
        vector_Gd, length_G = module.compose(users)
        user_Nd, item_NE = vector_Gd[member_N], module.item_table(batch.item)
        rating_N = module.fold_in.mean + (user_Nd[:, :k] * item_NE[:, :k]).sum(1) + user_Nd[:, k] + item_NE[:, k + 1]
        own_N = PARTS * (module.own[users, :k].square().sum(1) + length_G)[member_N]
        item_N = item_NE[:, :k].square().sum(1)
        penalty_N = module.weighted(batch.user, batch.item, own_N, user_Nd[:, k], item_N, item_NE[:, k + 1])
        return cast(Tensor, ((rating_N - batch.target).square() + penalty_N).mean())

    def optimizers(self, module: Any) -> list[torch.optim.Optimizer]:
        """Fused Adam over everything but the composed user table."""
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [decaying(torch.optim.Adam(learned, self.learning_rate or RATE, fused=True), module.steps)]


def _touched(train: Dataset, unrated: Interactions | None) -> History:
    """N(u): each item once, whether rated or not."""
    rows = train.interactions
    user, item = rows.user, rows.item
    if unrated is not None:
        user, item = np.concatenate([user, unrated.user]), np.concatenate([item, unrated.item])
    pair = np.unique(np.stack([user, item]), axis=1)
    return Interactions(pair[0], pair[1], np.ones(pair.shape[1], np.float32)).history(train.n_users)
