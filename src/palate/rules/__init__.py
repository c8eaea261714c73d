"""Rules as data: which items may be listed, where, how many of a kind, and how similar.

rules = Rules.load("rules.toml")               # what a person writes
compiled = compile_rules(rules, catalog)       # names looked up as rows of a catalog, once for many requests
lists = rerank(compiled, best, users=2, k=10)  # lists for the users of a request
"""

from palate.rules.catalog import Catalog
from palate.rules.compiled import CompiledRules, compile_rules
from palate.rules.rerank import Candidates, Reranked, rerank
from palate.rules.rules import Pin, Recency, Rules

__all__ = ["Candidates", "Catalog", "CompiledRules", "Pin", "Recency", "Reranked", "Rules", "compile_rules", "rerank"]
