"""From a fitted model to lists of external ids: what is asked, who is answered by what, and the answer."""

from palate.recommend.recommender import Recommender

__all__ = ["Recommender"]
