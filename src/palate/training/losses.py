"""Training losses as pure functions of scores.

Shape legend: B positives of a batch, n negatives of a positive; T positions of sequences, I items, L banned items,
D width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_CELLS = 1 << 18  # logits held at once by chunked_softmax: 1 MB, which stays in a cache near the processor


def bce(score: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of sigmoid(score) against targets in [0, 1] (He et al. 2017, eq. 7)."""
    return F.binary_cross_entropy_with_logits(score, target)


def bpr(positive_B: Tensor, negative_Bn: Tensor) -> Tensor:
    """Mean of -log sigmoid(positive - negative) over all pairs (Rendle et al. 2009, BPR-Opt without its prior)."""
    return -F.logsigmoid(positive_B[:, None] - negative_Bn).mean()


def in_batch_softmax(
    user_GD: Tensor,
    item_KD: Tensor,
    row_B: Tensor,
    column_B: Tensor,
    log_q_B: Tensor | None = None,
    *,
    mask_hits: bool = False,
    log_weight_K: Tensor | None = None,
) -> Tensor:
    """Mean softmax cross-entropy of dot products, where the items of the other positives are a positive's negatives.

    Users and items come once each, however often they stand in the batch: an item that stands there c times counts as
    c negatives. Positives whose probability is below 1e-38 count as that.

    Args:
        user_GD: vectors of the distinct users.
        item_KD: vectors of the distinct items; each must stand in the batch, or have a weight.
        row_B: whose positive it is, by row of ``user_GD``.
        column_B: which item it is, by row of ``item_KD``.
        log_q_B: log of the chance that the item of a positive stands in a batch row. Subtracted from its scores, so
            that frequent items, which are negatives more often, are not held down (Bengio & Senecal 2008; Yi et al.
            2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", eq. 6).
        mask_hits: do not count a positive's own item as its negative where the batch holds it more than once
            (accidental hits).
        log_weight_K: log of how many negatives an item counts as, where it stands in no row of the batch; -inf for
            all others. Default: there are none such.
    """
    loss: Tensor = _InBatchSoftmax.apply(user_GD, item_KD, row_B, column_B, log_q_B, mask_hits, log_weight_K)  # type: ignore[no-untyped-call]
    return loss


class _InBatchSoftmax(torch.autograd.Function):
    """Loss and gradient in closed form: four passes over the (G, K) scores, where autograd would take a dozen.

    With P the softmax over the distinct items of score + log(c / q), p its value at a positive, and r = 1 - p + p / c
    the rest of the row without the accidental hits (r = 1 where they stay),

        loss = -log(p / (c r)),        d loss / d score = (P - 1 at the positive) / r
    """

    @staticmethod
    def forward(
        ctx: Any,
        user_GD: Tensor,
        item_KD: Tensor,
        row_B: Tensor,
        column_B: Tensor,
        log_q_B: Tensor | None,
        mask: bool,
        log_weight_K: Tensor | None,
    ) -> Tensor:
        full = torch.promote_types(user_GD.dtype, torch.float32)  # the products may be in less
        count_K = column_B.bincount(minlength=len(item_KD)).to(full)
        offset_K = count_K.log()
        if log_q_B is not None:
            offset_K -= torch.zeros_like(offset_K).scatter_(0, column_B, log_q_B.to(full))
        if log_weight_K is not None:
            offset_K = torch.maximum(offset_K, log_weight_K.to(full))  # -inf where the item stands in no row
        share_GK = torch.softmax((user_GD @ item_KD.T).to(full).add_(offset_K), 1)
        place_B = row_B * len(item_KD) + column_B
        own_B = share_GK.take(place_B)
        alone_B = own_B / count_K[column_B]
        weight_B = 1 / (1 - own_B + alone_B) if mask else torch.ones_like(own_B)
        # The gradient, in place of the shares.
        share_GK *= share_GK.new_zeros(len(share_GK), 1).index_add_(0, row_B, weight_B[:, None])
        share_GK.view(-1).index_add_(0, place_B, weight_B, alpha=-1)
        share_GK = share_GK.to(user_GD.dtype)
        ctx.save_for_backward(share_GK @ item_KD, share_GK.T @ user_GD)
        ctx.rows = len(row_B)
        return -(alone_B * weight_B).clamp_(min=1e-38).log_().mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        d_user, d_item = ctx.saved_tensors
        scale = grads[0] / ctx.rows
        return d_user * scale, d_item * scale, None, None, None, None, None


def sampled_softmax(positive_T: Tensor, negative_Tn: Tensor, n_items: int) -> Tensor:
    """Mean softmax cross-entropy against n uniform negatives that stand for all the other items.

    Each negative counts (I - 1) / n times, which makes the sum an unbiased estimate of the full one (Bengio & Senecal
    2008; Klenitskiy & Vasilev 2023). A negative to be left out has logit -inf.
    """
    # A logit raised by log(w) counts w times in the sum of exponentials.
    weight = math.log(max(n_items - 1, 1) / negative_Tn.shape[1])
    both = torch.cat([positive_T[:, None], negative_Tn + weight], dim=1)
    return (both.logsumexp(1) - positive_T).mean()


def gbce(positive_T: Tensor, negative_Tn: Tensor, n_items: int, gbce_t: float) -> Tensor:
    """Mean generalized binary cross-entropy against n uniform negatives (Petrov & Macdonald 2023, gSASRec, eq. 11-15).

        -(log sigmoid(positive)^beta + sum log(1 - sigmoid(negative))) / (n + 1)
        beta = a (t (1 - 1/a) + 1/a),   a = n / (I - 1)

    ``gbce_t`` is t: 0 is plain binary cross-entropy, 1 undoes the overconfidence that negative sampling brings.
    """
    n = negative_Tn.shape[1]
    total_T = gbce_beta(n, n_items, gbce_t) * F.logsigmoid(positive_T) + F.logsigmoid(-negative_Tn).sum(1)
    return -total_T.mean() / (n + 1)


def gbce_beta(negatives: int, n_items: int, gbce_t: float) -> float:
    """The beta of ``gbce``."""
    share = min(1.0, negatives / max(n_items - 1, 1))
    return share * (gbce_t * (1 - 1 / share) + 1 / share)


def gbce_prior(count_I: Tensor, negatives: int, gbce_t: float) -> Tensor:
    """The scores (I,) that minimize ``gbce`` if they do not depend on the history: log(beta I count / (n total)).

    They are far below 0, since an event has hundreds of negatives. A network that starts at 0 learns this level first,
    through all of its vectors at once, and the steps of Adam stay small for a thousand steps afterwards, so that
    short trainings end with little more than popularity.

    Args:
        count_I: how often each item is a positive; half an event is added to each.
        negatives: n.
        gbce_t: t.
    """
    smooth_I = count_I.double() + 0.5
    beta = gbce_beta(negatives, len(count_I), gbce_t)
    return (beta * len(count_I) / negatives * smooth_I / smooth_I.sum()).log().float()


def log_popularity(count_I: Tensor, known_I: Tensor | None = None) -> Tensor:
    """The scores (I,) that minimize a softmax if they depend on no user: log of count over that of a mean item.

    Args:
        count_I: how often each item is a positive, not all 0; half an event is added to each.
        known_I: items with a vector of their own; the others, known by their features, get 0. None: all.
    """
    prior_I = (count_I.double() + 0.5).log() - count_I[count_I > 0].double().mean().log()
    return (prior_I if known_I is None else prior_I.where(known_I, 0)).float()


def chunked_softmax(
    x_TD: Tensor, table_ID: Tensor, bias_I: Tensor, target_T: Tensor, banned_TL: Tensor | None = None
) -> Tensor:
    """Mean softmax cross-entropy of x . table + bias over all items, without ever holding (T, I) logits.

    Logits are made, turned into gradients and dropped, ``CHUNK_CELLS`` at a time. Under autocast the products are in
    its type (bfloat16 on a CPU), the softmax in float32.

    Args:
        x_TD: vectors.
        table_ID: item vectors.
        bias_I: item biases.
        target_T: the right item of each row.
        banned_TL: items taken out of the softmax of a row, repeated at will; the target stays in, even if listed.
    """
    loss: Tensor = _ChunkedSoftmax.apply(x_TD, table_ID, bias_I, target_T, banned_TL)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, table_ID: Tensor, bias_I: Tensor, target_T: Tensor, banned_TL: Tensor | None
    ) -> Tensor:
        kind = x_TD.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_TD.dtype
        x_low, table_low, bias = x_TD.to(low), table_ID.to(low), bias_I.float()
        # The gradient is made in the forward pass, while the logits of a chunk are still in the cache.
        d_x, d_table, d_bias = torch.empty_like(x_low), torch.zeros_like(table_ID), torch.zeros_like(bias)
        total = bias.new_zeros(())
        for part in torch.arange(len(x_TD), device=x_TD.device).split(max(1, CHUNK_CELLS // len(table_ID))):
            one = slice(int(part[0]), int(part[-1]) + 1)
            target = target_T[one, None]
            logit = (x_low[one] @ table_low.T).float().add_(bias)
            if banned_TL is not None:
                # The target may be among the banned: its logit is kept and written back.
                own = logit.gather(1, target)
                logit.scatter_(1, banned_TL[one], -torch.inf).scatter_(1, target, own)
            p = torch.softmax(logit, 1)
            total -= p.gather(1, target).clamp_(min=1e-30).log_().sum()
            p.scatter_add_(1, target, p.new_full((1, 1), -1.0).expand_as(target))
            d_bias += p.sum(0)
            p = p.to(low)
            torch.mm(p, table_low, out=d_x[one])
            if low == d_table.dtype:  # addmm_ adds in place, but needs a single type
                d_table.addmm_(p.T, x_low[one])
            else:
                d_table += p.T @ x_low[one]
        ctx.save_for_backward(d_x.to(x_TD.dtype), d_table, d_bias.to(bias_I.dtype))
        return total / max(len(x_TD), 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        d_x, d_table, d_bias = ctx.saved_tensors
        scale = grads[0] / max(len(d_x), 1)
        return d_x * scale, d_table * scale, d_bias * scale, None, None
