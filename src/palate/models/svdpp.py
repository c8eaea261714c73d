"""SVD++: matrix factorization of ratings with implicit feedback (Koren 2008, "Factorization Meets the Neighborhood").

    rating(u, i) = mean + b_u + b_i + q_i . (p_u + |N(u)|^-1/2 sum_{j in N(u)} y_j)            (eq. 15)

    sum over ratings of e^2 + l (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2 + |N(u)|^-1 sum_j |y_j|^2)

N(u) are the items that the user touched: the training rows, and rows without a rating where they are given (of the
anime data the rows rated -1, watched but not rated). The penalty of y is spread over the items of N(u), so that it does
not grow with their number. Trained by Adam; the sum over N(u) is taken once per user of a batch. The fitted user vector
has the sum in it, and scoring is a dot product.

Implicit data are learned as ratings of 1 against n unseen items drawn as ratings of 0. These vary by n / (1 + n)^2
alone, and l is multiplied by that: the l of ratings would leave little of the vectors.

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

from palate.base import Batch, DataSpec, Recipe, TrainOptions, as_dataset, overflow_explained
from palate.bounds import Count, NonNegative, Positive, Rounds, Width
from palate.data.dataset import Dataset, History, Interactions
from palate.errors import ModelError
from palate.models.rating_factors import RatingFactors, RidgeFoldIn, rating_batches, ratings_of
from palate.training import trainer as training
from palate.training.negative_sampling import report_users_without_negatives


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
        super().__init__(spec, dim, RidgeFoldIn(spec, dim, per_event=True, linked=True))
        self.own = nn.Parameter(self.user_table.weight.detach().clone())
        # Composed of the two parts in each step, never learned itself.
        self.user_table.requires_grad_(False)
        self.touched = nn.Parameter(0.01 * torch.randn(spec.items, dim))
        # While training: N(u), and l for ratings like these.
        self.history: History | None = None
        self.strength = 0.0

    def compose(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """User vectors (G, d), and the mean squared length of y over each N(u), (G,)."""
        if self.history is None:
            raise ModelError("SVD++ is trained with the items that each user touched: use SVDpp.fit")
        chosen = self.history.select(users.cpu().numpy())
        items = torch.from_numpy(chosen.items.astype(np.int64)).to(users.device)
        offsets = torch.from_numpy(chosen.offsets).to(users.device)
        count_G1 = offsets.diff().clamp(min=1)[:, None]
        # As one more column of the table, so that one pass over the bags sums vectors and lengths.
        squared_I1 = self.touched.square().sum(1, keepdim=True)
        table_IE = torch.cat([self.touched, squared_I1], 1)
        sum_GE = cast(Tensor, _BagSums.apply(table_IE, items, offsets))  # type: ignore[no-untyped-call]
        vector_Gd = self.own[users] + F.pad(sum_GE[:, :-1] / count_G1.sqrt(), (0, 1))
        length_G = sum_GE[:, -1] / count_G1.squeeze(1)
        with torch.no_grad():
            self.user_table.weight[users] = vector_Gd
        return vector_Gd, length_G


@dataclass(frozen=True)
class SVDpp(Recipe[SVDppModel]):
    """Matrix factorization of ratings with implicit feedback.

    Args:
        dim: width K of the vectors.
        epochs: passes over the ratings.
        batch_size: ratings per step.
        learning_rate: of Adam.
        regularization: l, for ratings; implicit data take the fraction of it given in the module's docstring.
        negatives: unseen items drawn per row of implicit data.
    """

    name: ClassVar[str] = "svdpp"

    dim: Width = 16
    epochs: Rounds = 12
    batch_size: Count = 512
    learning_rate: Positive = 0.002
    regularization: NonNegative = 0.2
    negatives: Count = 4

    @classmethod
    def fast(cls) -> Self:
        """Wider, in larger steps."""
        return cls(dim=32, epochs=12, batch_size=2048, learning_rate=0.005)

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
        train = self.training_rows(whole)
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            model = self.build(DataSpec(train.n_users, train.n_items))
        if not train.explicit:
            report_users_without_negatives(train, self.name, options.progress)
        model.set_scale(ratings_of(train, self.negatives, options.seed))
        model.strength = self.regularization
        if not train.explicit:
            model.strength *= self.negatives / (1 + self.negatives) ** 2
        model.history = _touched(train, unrated)
        with overflow_explained(self.name, train):
            training.fit(self, train, options, model)
        with torch.no_grad():
            for users in torch.arange(train.n_users).split(1 << 14):
                model.compose(users)
            assert model.fold_in.link is not None
            model.fold_in.link[:, 0] = F.pad(model.touched, (0, 1))
        # The floor is that of ``mf``: a history of one rating must not be fitted fully.
        model.fold_in.precision.copy_(max(model.strength, 0.02) * torch.eye(self.dim + 1))
        model.history = None
        model.settle(train, self.negatives)
        model.fold_in.center.copy_(model.own[model.trained].mean(0).detach())
        if not train.explicit:
            model.refold(train)
        model.trained_on = whole.fingerprint
        return model

    def training_rows(self, train: Dataset) -> Dataset:
        """All rows of ratings; of implicit feedback the positive ones."""
        return train if train.explicit else train.positives()

    def batches(self, train: Dataset, seed: int, epoch: int) -> Iterator[Batch]:
        """Ratings in random order: user, item and target (N,); negatives are redrawn in each epoch."""
        return rating_batches(train, self.negatives, self.batch_size, seed, epoch)

    def loss(self, module: Any, batch: Batch) -> Tensor:
        """Mean squared error of the batch plus the L2 of the vectors behind each rating."""
        k = self.dim
        users, member_N = batch.user.unique(return_inverse=True)
        vector_Gd, length_G = module.compose(users)
        user_Nd, item_NE = vector_Gd[member_N], module.item_table(batch.item)
        rating_N = module.fold_in.mean + (user_Nd[:, :k] * item_NE[:, :k]).sum(1) + user_Nd[:, k] + item_NE[:, k + 1]
        own_G = module.own[users].square().sum(1) + length_G
        penalty_N = own_G[member_N] + item_NE[:, :k].square().sum(1) + item_NE[:, k + 1].square()
        return cast(Tensor, ((rating_N - batch.target).square() + module.strength * penalty_N).mean())

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """Fused Adam over everything but the composed user table."""
        learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [torch.optim.Adam(learned, self.learning_rate, fused=True)]


def _touched(train: Dataset, unrated: Interactions | None) -> History:
    """N(u): each item once, whether rated or not."""
    rows = train.interactions
    user, item = rows.user, rows.item
    if unrated is not None:
        user, item = np.concatenate([user, unrated.user]), np.concatenate([item, unrated.item])
    pair = np.unique(np.stack([user, item]), axis=1)
    return Interactions(pair[0], pair[1], np.ones(pair.shape[1], np.float32)).history(train.n_users)
