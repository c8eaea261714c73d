"""The best items of a catalog by dot product: exact, or approximate for large catalogs, by the same call.

    index = build_model_index(model, seen)      # or build_index(vectors_ID) of any vectors
    values_BK, items_BK = index.search(query_BD, k=10, exclude=seen)

``Exact`` scores every item. ``Approximate`` lets FAISS (extra ``palate[index]``) find candidates and scores those
itself. Both return k items wherever k are allowed.
"""

from palate.retrieval.approximate import Approximate
from palate.retrieval.build import KINDS, Kind, build_index, build_model_index
from palate.retrieval.exact import Exact
from palate.retrieval.index import Index, IndexInfo, SearchResult

__all__ = [
    "KINDS",
    "Approximate",
    "Exact",
    "Index",
    "IndexInfo",
    "Kind",
    "SearchResult",
    "build_index",
    "build_model_index",
]
