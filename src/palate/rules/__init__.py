"""Rules as data: which items may be listed, where, how many of a kind, and how much alike."""

from palate.rules.catalog import Catalog
from palate.rules.compiled import BoundRules
from palate.rules.rerank import Picked
from palate.rules.rules import Pin, Recency, Rules

__all__ = ["BoundRules", "Catalog", "Picked", "Pin", "Recency", "Rules"]
