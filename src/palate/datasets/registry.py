"""Data sets known by name: their sources, contents, license and citation.

dataset = load("ml-100k")         # from PALATE_DATA, else the cache, else downloaded

A copy in the folder ``PALATE_DATA`` (NAME.zip, or its files in a folder NAME) takes precedence over all other sources.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from functools import partial

import polars as pl

from palate.data.dataset import Dataset, Note
from palate.data.feedback import MinRating
from palate.data.frame import from_frame
from palate.data.splits.parts import from_parts
from palate.data.splits.split import Split
from palate.datasets.formats import Archive, ncf_items, read_anime, read_ml_1m, read_ml_100k, read_ml_csv, read_ncf
from palate.datasets.sources import Entry, Remote, find, locate
from palate.errors import DataError
from palate.progress import Progress, silent


def names() -> list[str]:
    """The names of all known data sets."""
    return list(REGISTRY)


def suggest(name: str) -> str | None:
    """The known name most similar to ``name``: "movielens100k" gives "ml-100k"; None if none is similar."""
    plain = name.lower().replace("movielens", "ml").replace("_", "-").replace(" ", "-")
    return next(iter(get_close_matches(plain, REGISTRY, n=1, cutoff=0.6)), None)


def entry_of(name: str | Entry) -> Entry:
    """The entry of a name; an entry is returned unchanged.

    Raises:
        DataError: unknown name; the message has the most similar one.
    """
    if isinstance(name, Entry):
        return name
    if name in REGISTRY:
        return REGISTRY[name]
    near = suggest(name)
    hint = f", did you mean {near!r}?" if near else "."
    raise DataError(f"no data set is called {name!r}{hint} Known are {', '.join(REGISTRY)}")


def load(name: str | Entry, *, min_rating: MinRating = "auto", progress: Progress = silent) -> Dataset:
    """Load a named data set, downloaded first if it is not on this machine.

    Ratings of -1 in anime (watched, not rated) are dropped and counted; ``formats.read_anime`` can keep them.
    "ncf-ml-1m" returns its training rows followed by its test rows; ``load_split`` returns them as a split.

    Args:
        name: a known name (see ``names``), or an entry for a data set that is not in the registry.
        min_rating: which rows are positive, as in ``from_frame``; "any" is what most published tables use.
        progress: receives the license and the bytes of a download.

    Raises:
        DataError: unknown name, or the copy cannot be read.
        SourceError: no source has it; the message lists each source and the steps of a manual download.
    """
    entry = entry_of(name)
    located = locate(entry, progress=progress)
    dataset = entry.read(Archive.open(located.path))
    dataset = dataset if min_rating == "auto" else dataset.with_min_rating(min_rating)
    notes = list(located.notes)
    if notes and not located.converted and entry.digest:
        # Packing a zip file again changes its checksum, not its rows: the fingerprint separates the two cases.
        same = dataset.fingerprint.digest == entry.digest
        notes[0] += "; its rows equal the official ones" if same else "; its rows DIFFER from the official ones"
    return replace(dataset, notes=(*dataset.notes, *(Note(note, len(dataset)) for note in notes)))


def load_split(name: str | Entry, *, progress: Progress = silent) -> Split:
    """The split that a data set comes with: for "ncf-ml-1m" the official one, with its 99 listed negatives.

    Every rating of it is positive, as in the paper; ``Split.with_min_rating`` changes that.

    Raises:
        DataError: unknown name, or the data set comes without a split.
        SourceError: no source has it.
    """
    entry = entry_of(name)
    if entry.read is not _read_ncf:
        raise DataError(
            f"{entry.name} comes without a split: load it, then split it with palate.by_time or palate.leave_one_out"
        )
    located = locate(entry, progress=progress)
    archive = Archive.open(located.path)
    how = "official leave-one-out of He et al. 2017, latest item"
    split = from_parts(*read_ncf(archive), name=entry.name, how=how, min_rating="any")
    split = replace(split, notes=(*split.notes, *(Note(note, len(split.train)) for note in located.notes)))
    if (features := _ncf_features(archive)) is None:
        return split
    table = split.train.items.ids.to_frame("item_id").join(features, on="item_id", how="left", maintain_order="left")
    titles = table["title"].fill_null(table["item_id"].cast(pl.String)) if "title" in table.columns else None
    train = replace(split.train, item_features=table.drop("item_id"), titles=titles)
    return replace(split, train=train, test=train.with_rows(split.test.interactions))


def _ncf_features(archive: Archive) -> pl.DataFrame | None:
    # The official files have no titles. A copy of MovieLens 1M on this machine is used, but not downloaded for them.
    movielens = find(REGISTRY["ml-1m"])
    return ncf_items(archive, None if movielens is None else Archive.open(movielens.path))


def _read_ncf(archive: Archive) -> Dataset:
    rows = read_ncf(archive)
    return from_frame(
        pl.concat([rows.train, rows.test]),
        name="ncf-ml-1m",
        explicit=True,
        item_features=_ncf_features(archive),
        source=f"{archive.path}: ml-1m.train.rating and ml-1m.test.rating",
    )


GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
NCF = "https://raw.githubusercontent.com/hexiangnan/neural_collaborative_filtering/master/Data/"
MOVIELENS_TERMS = "research use with acknowledgement; no redistribution, no commercial use without permission"
MOVIELENS_PAPER = (
    "F. M. Harper and J. A. Konstan (2015). The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 19. https://doi.org/10.1145/2827872"
)
NCF_PAPER = (
    "X. He, L. Liao, H. Zhang, L. Nie, X. Hu and T.-S. Chua (2017). Neural Collaborative Filtering. "
    "WWW 2017. https://doi.org/10.1145/3038912.3052569"
)
CSV_LAYOUTS = (("ratings.csv", "movies.csv"), ("rating.csv", "movie.csv"))


def _grouplens(name: str, size: int, md5: str | None) -> tuple[Remote, ...]:
    # An archive without a checksum changes over time, so its size is not checked either.
    return (Remote(f"{GROUPLENS}{name}.zip", size if md5 else None, f"md5:{md5}" if md5 else None),)


ENTRIES = (
    Entry(
        name="ml-100k",
        description="MovieLens 100K: ratings of films, 1997-1998, with user and film features",
        rows=100_000,
        users=943,
        items=1_682,
        size=4_924_029,
        license=MOVIELENS_TERMS,
        citation=MOVIELENS_PAPER,
        read=read_ml_100k,
        needs=(("u.data", "u.item", "u.user"),),
        remotes=_grouplens("ml-100k", 4_924_029, "0e33842e24a9c977be4e0107933c0723"),
        wheel="recbole==1.2.1",
        digest="f26ab00178c6dde0173daec11bc4715a",
    ),
    Entry(
        name="ml-1m",
        description="MovieLens 1M: ratings of films, 2000-2003, with user and film features",
        rows=1_000_209,
        users=6_040,
        items=3_706,
        size=5_917_549,
        license=MOVIELENS_TERMS,
        citation=MOVIELENS_PAPER,
        read=read_ml_1m,
        needs=(("ratings.dat", "movies.dat", "users.dat"),),
        remotes=_grouplens("ml-1m", 5_917_549, "c4d9eecfca2ab87c1945afe126590906"),
    ),
    Entry(
        name="ml-20m",
        description="MovieLens 20M: ratings of films, 1995-2015",
        rows=20_000_263,
        users=138_493,
        items=26_744,
        size=198_702_078,
        license=MOVIELENS_TERMS,
        citation=MOVIELENS_PAPER,
        read=partial(read_ml_csv, name="ml-20m"),
        needs=CSV_LAYOUTS,
        remotes=_grouplens("ml-20m", 198_702_078, "cd245b17a1ae2cc31bb14903e1204af3"),
    ),
    Entry(
        name="ml-25m",
        description="MovieLens 25M: ratings of films, 1995-2019",
        rows=25_000_095,
        users=162_541,
        items=59_047,
        size=261_978_986,
        license=MOVIELENS_TERMS,
        citation=MOVIELENS_PAPER,
        read=partial(read_ml_csv, name="ml-25m"),
        needs=CSV_LAYOUTS,
        remotes=_grouplens("ml-25m", 261_978_986, "6b51fb2759a8657d3bfcbfc42b592ada"),
    ),
    Entry(
        name="ml-latest-small",
        description="MovieLens latest small: ratings of films, 1996-2018; changes over time",
        rows=100_836,
        users=610,
        items=9_724,
        size=978_202,
        license="research use with acknowledgement; may be passed on under the same terms, no commercial use",
        citation=MOVIELENS_PAPER,
        read=partial(read_ml_csv, name="ml-latest-small"),
        needs=CSV_LAYOUTS,
        remotes=_grouplens("ml-latest-small", 978_202, None),
    ),
    Entry(
        name="anime",
        description="Anime Recommendations Database: ratings from myanimelist.net, -1 is watched but not rated",
        rows=7_813_737,
        users=73_515,
        items=11_200,
        size=None,
        license="CC0 1.0 (public domain), as stated on Kaggle",
        citation="CooperUnion (2016). Anime Recommendations Database. Kaggle",
        read=read_anime,
        needs=(("rating.csv", "anime.csv"),),
        by_hand="https://www.kaggle.com/datasets/CooperUnion/anime-recommendations-database (needs an account)",
    ),
    Entry(
        name="ncf-ml-1m",
        description="MovieLens 1M as the NCF paper evaluates it: last rating of each user, 99 listed negatives",
        rows=1_000_209,
        users=6_040,
        items=3_706,
        size=24_002_183,
        license=MOVIELENS_TERMS,
        citation=f"{NCF_PAPER}; {MOVIELENS_PAPER}",
        read=_read_ncf,
        needs=(("ml-1m.train.rating", "ml-1m.test.rating", "ml-1m.test.negative"),),
        remotes=(
            Remote(f"{NCF}ml-1m.test.rating", 128_039, "md5:0970f5997be60425205b85a6af9d3051"),
            Remote(f"{NCF}ml-1m.test.negative", 2_891_424, "md5:ae0af08bac7fea5a1de4744821015321"),
            Remote(f"{NCF}ml-1m.train.rating"),
        ),
    ),
)
REGISTRY: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}
