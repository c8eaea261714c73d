"""Rules as data: which items may be listed, where, how many of a kind, and how much alike."""

from palate.rules.bound import BoundRules
from palate.rules.catalogue import Catalogue
from palate.rules.pick import Picked
from palate.rules.spec import Pin, Recency, Rules

__all__ = ["BoundRules", "Catalogue", "Picked", "Pin", "Recency", "Rules"]
