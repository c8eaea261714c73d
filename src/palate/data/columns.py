"""Which column is which: user, item, rating and time under whatever names a source gives them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from difflib import get_close_matches

from palate.errors import DataError

# Names compared in lower case without punctuation; a name further left wins over one in a later group.
Groups = tuple[tuple[str, ...], ...]


def words(*lines: str) -> Groups:
    """The words of each line."""
    return tuple(tuple(line.split()) for line in lines)


RATINGS = words(
    "rating",
    "ratings score stars rate overall ratingvalue userrating userscore starrating reviewrating reviewscore bookrating "
    "reviewoverall grade vote",
)
LABELS = words(
    "label",
    "clicked click isclick isclicked liked isliked islike purchased ispurchased ispurchase bought isbought converted "
    "conversion isconverted thumbsup",
)
WEIGHTS = words(
    "weight",
    "weights plays playcount count quantity qty clicks views frequency strength counts nplays numplays timesplayed "
    "listens listencount listeningcount scrobbles streams purchases orders visits nclicks numclicks hours hoursplayed "
    "playtime playtimeforever playhours playduration timespent watchtime watchhours watchduration watchratio viewtime "
    "viewduration dwelltime minuteswatched minutesplayed secondswatched secondsplayed msplayed orderqty orderquantity "
    "units",
    "duration minutes seconds amount spend",
)
SYNONYMS: dict[str, Groups] = {
    "user": words(
        "userid",
        "user uid customerid customeruniqueid visitorid fullvisitorid memberid reviewerid clientid accountid "
        "personid buyerid shopperid viewerid listenerid playerid readerid subscriberid guestid studentid learnerid "
        "profileid steamid msno userhash usersha1 householdid householdkey",
        "customer visitor member reviewer client username buyer shopper viewer listener player reader subscriber "
        "guest student learner account person",
        "sessionid session cookieid cookie deviceid",
        "email useremail emailaddress customeremail",
    ),
    "item": words(
        "itemid",
        "movieid productid trackid animeid articleid artistid bookid songid gameid",
        "videoid newsid businessid contentid iid sku skuid asin parentasin isbn stockcode productcode itemcode "
        "recipeid hotelid restaurantid venueid poiid placeid courseid lessonid postid storyid jobid listingid adid "
        "showid podcastid episodeid photoid appid propertyid goodsid materialid albumid documentid docid paperid "
        "beerid wineid",
        "item movie product track anime article artist book song game video page url recipe hotel restaurant venue "
        "place course lesson post story job listing ad show podcast episode photo app album document paper beer wine",
        "itemname itemtitle movietitle moviename producttitle productname trackname artistname booktitle songname "
        "gametitle gamename videotitle title",
        "items itemids products productids movies movieids tracks trackids songs songids articles articleids",
    ),
    "rating": RATINGS + LABELS + WEIGHTS,
    "timestamp": words(
        "timestamp",
        "time datetime date ts when eventtime createdat unixreviewtime tdat invoicedate eventts eventtimestamp "
        "eventdate timestampms timems tsms tsseconds unixtime unixtimestamp epoch utctime orderdate ordertime "
        "ordertimestamp orderedat orderpurchasetimestamp purchasedate purchasetime purchasedat reviewdate ratingdate "
        "ratingtime ratingtimestamp ratedat listenedat playedat watchedat viewedat clickedat clicktime "
        "transactiondate transactiontime createtime createdtime createddate creationdate dateadded addedat",
        "reviewtime reviewtimestamp updatedat updatedtime lastplayed",
    ),
}
EVENTS = words(
    "event eventtype eventname action actiontype behavior behaviour behaviortype behaviourtype interaction "
    "interactiontype activity activitytype feedbacktype"
)[0]
OPTIONS = {"user": "--user", "item": "--item", "rating": "--rating", "timestamp": "--time", "event": "--event"}


@dataclass(frozen=True)
class Columns:
    """The names that a source gives to its columns; None where it has no such column.

    ``rating`` is the column of ratings, quantities or labels; a source with a column of event types has none.
    """

    user_id: str
    item_id: str
    rating: str | None = None
    timestamp: str | None = None
    event: str | None = None

    @property
    def used(self) -> list[str]:
        """The columns that exist, without repetition."""
        return [name for name in astuple(self) if name is not None]


def find_columns(
    names: Sequence[str],
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    timestamp: str | None = None,
    weight: str | None = None,
    event: str | None = None,
    source: str = "columns",
) -> Columns:
    """Which column is which: given names win, the others are found by their usual names.

    Case and punctuation do not matter (``userId``, ``USER_ID``), nor does a RecBole type (``user_id:token``). An
    empty string for rating or timestamp means that no such column is used, whatever the names. ``weight`` names a
    column of quantities in place of ratings, ``event`` one of event types, which is never found by its name. ``source``
    is the name of the table in error messages.

    Raises:
        DataError: a given name does not exist, there is no user or item, or two columns fit equally well.
    """
    if weight and rating:
        raise DataError(f"{source}: rating={rating!r} and weight={weight!r}: give one, ratings or quantities")
    rating = weight or rating
    if event and rating:
        raise DataError(f"{source}: event={event!r} and a weight column {rating!r}: give one, event types get a weight")
    # With event types the weight of a row is that of its type: no other column is looked for.
    rating = "" if event else rating
    given = {"user": user, "item": item, "rating": rating, "timestamp": timestamp, "event": event or ""}
    for role, name in given.items():
        if name and name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f", did you mean {near[0]!r}" if near else ""
            raise DataError(f"{source}: no column {name!r} for the {role}{hint}: the columns are {listed(names)}")
    taken = {name for name in given.values() if name}
    free = [name for name in names if name not in taken]
    found = {role: _find(role, free, source) if name is None else name or None for role, name in given.items()}
    for role in ("user", "item"):
        if found[role] is None:
            single = "two are needed; pass the mark between columns, if there are more (--separator)"
            if source == "dataframe":
                single = "two are needed; frame.reset_index() makes columns of the index of a pandas table"
            remedy = f"name it with {role}=... ({OPTIONS[role]})" if len(names) > 1 else single
            raise DataError(f"{source}: no column looks like the {role}: the columns are {listed(names)}: {remedy}")
    columns = Columns(str(found["user"]), str(found["item"]), found["rating"], found["timestamp"], found["event"])
    require(columns, names, source)
    return columns


def key_column(names: Sequence[str], column: str, role: str) -> str:
    """The column of ids in a table about users or items: named as ``column``, or as usual, else the first."""
    same = [name for name in names if name == column] or [name for name in names if plain(name) == plain(column)]
    usual = ([name for name in names if plain(name) in group] for group in SYNONYMS[role])
    return next((found[0] for found in (same, *usual) if len(found) == 1), names[0])


def _find(role: str, names: Sequence[str], source: str) -> str | None:
    for group in SYNONYMS[role]:
        hits = [name for name in names if plain(name) in group]
        if len(hits) > 1:
            none = "" if role in ("user", "item") else "; an empty name means none"
            raise DataError(
                f"{source}: {listed(hits)} could all be the {role}: choose with {role}=... ({OPTIONS[role]}){none}"
            )
        if hits:
            return hits[0]
    return None


def plain(name: str) -> str:
    """A column name without case, punctuation and RecBole type."""
    return re.sub(r"[\W_]", "", name.split(":", maxsplit=1)[0].lower())


def is_weight(name: str) -> bool:
    """Whether a column holds quantities (plays, clicks, hours) and not ratings on a scale, by its name."""
    return any(plain(name) in group for group in WEIGHTS)


def shortened(value: object) -> str:
    """A value as written in code, for a message; cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(text: str) -> str:
    """A text whose line ends and other control characters are written as in code, so that it takes one line."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: repr(found[0])[1:-1], text)


def listed(names: Sequence[object]) -> str:
    """Names for a message, quoted, at most twenty."""
    return ", ".join(shortened(name) for name in names[:20]) + (
        f" and {len(names) - 20} more" if len(names) > 20 else ""
    )


def require(columns: Columns, names: Sequence[str], source: str) -> None:
    """Raises DataError where a mapped column does not exist or is mapped twice."""
    mapped = columns.used
    missing = [name for name in mapped if name not in names]
    if missing:
        raise DataError(f"{source}: no column {listed(missing)}: the columns are {listed(names)}")
    if len(set(mapped)) < len(mapped):
        raise DataError(f"{source}: one column is mapped twice ({listed(mapped)}): each role needs a column of its own")
