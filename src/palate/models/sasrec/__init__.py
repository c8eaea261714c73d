"""SASRec: a transformer that reads a history and predicts the next item (Kang & McAuley 2018, ICDM).

    e_i  = id vector  (+ vectors of the item's features; the id's is 0 for an item without training rows)
    x_t  = sqrt(D) e_(item t)  (+ g_(bucket of the time since the event before))
                               (+ w_(bucket of the time until the next event, or until the request))
    x    = blocks of causal self-attention and feed-forward layers, each with its residual
    s_ti = norm(x_t) . e_i + b_i                      the same item table on both sides

Where the paper adds a learned vector for each position, attention here gets a learned bias for each distance between
two events and each head (Shaw et al. 2018; Raffel et al. 2020): the influence of an event depends on its distance, and
every distance is trained at every place. Losses: the full softmax, a sampled one, or gBCE (Petrov & Macdonald 2023,
gSASRec). There are no user vectors: every user with a history is personalized, and a new event counts at once. Users
without a history, trained or not, get the mean state of the trained users; ``can_personalize`` says False.

recipe.py    SASRec: hyperparameters, losses, training
batches.py   histories packed into rows
network.py   SASRecModel: states and scores
"""

from palate.models.sasrec.network import SASRecModel
from palate.models.sasrec.recipe import SASRec

__all__ = ["SASRec", "SASRecModel"]
