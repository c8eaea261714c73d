"""The best items of a catalog by dot product: exact, or approximate for large catalogs, by the same call.

    index = index_of(model, seen)      # or build(vectors_ID) of any vectors
    values_BK, items_BK = index.search(query_BD, k=10, exclude=seen)

``Exact`` looks at every item. ``Approximate`` lets FAISS (extra ``palate[index]``) nominate candidates and scores those
itself. Both return k items wherever k are allowed.
"""

from palate.retrieval.approximate import Approximate
from palate.retrieval.base import About, Found, Index
from palate.retrieval.build import KINDS, Kind, build
from palate.retrieval.exact import Exact
from palate.retrieval.of_model import index_of

__all__ = ["KINDS", "About", "Approximate", "Exact", "Found", "Index", "Kind", "build", "index_of"]
