"""Bodies of requests and answers. Requests are checked by these models; answers are written without them, for speed,
and a test holds the two together.

Ids are texts of 1 to 500 characters; an integer in a request is read as its decimal text.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StringConstraints,
    Tag,
)

MAX_ID = 500


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else value


def _clean(value: str) -> str:
    # PostgreSQL stores no NUL, and UTF-8 has no lone surrogates.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which cannot be stored") from None
    if "\x00" in value:
        raise ValueError("holds a NUL, which cannot be stored")
    return value


Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ID),
    AfterValidator(_clean),
    BeforeValidator(_as_text, json_schema_input_type=str | int),
]
Text = Annotated[str, AfterValidator(_clean)]
EventId = Annotated[Text, StringConstraints(min_length=1, max_length=200)]


def _seconds(value: Any) -> Any:
    if isinstance(value, int | float) and abs(value) > LATEST:
        raise ValueError("is beyond the year 5000: give seconds since 1970, not milliseconds")
    return value


LATEST = 1e11
Moment = Annotated[FiniteFloat, Field(ge=-LATEST, le=LATEST), BeforeValidator(_seconds)]  # seconds since 1970
Value = bool | int | FiniteFloat | str


class Strict(BaseModel):
    """A request: unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", strict=False)


class HistoryEvent(Strict):
    """An event of a posted history."""

    item_id: Id
    weight: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] | None = None
    time: Moment | None = None


# By the kind of value, so that an error is about the one that was meant.
HistoryItem = Annotated[
    Annotated[Id, Tag("Id")] | Annotated[HistoryEvent, Tag("HistoryEvent")],
    Discriminator(lambda value: "HistoryEvent" if isinstance(value, dict | HistoryEvent) else "Id"),
]


class RecommendRequest(Strict):
    """A request for recommendations."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"history": ["50", {"item_id": "181", "weight": 5}], "k": 5}]}
    )

    user_id: Id | None = None
    session_id: Id | None = None
    history: list[HistoryItem] | None = None
    features: dict[str, Value | list[Value] | None] | None = None
    k: Annotated[int, Field(ge=1)] | None = None
    exclude: list[Id] = []
    candidates: list[Id] | None = None
    exclude_seen: bool | None = None
    rules: dict[str, Any] | None = None
    filter: dict[str, Value | list[Value]] | None = None
    scenario: str | None = None
    at: Moment | None = None
    explain: bool = False
    recommendation_id: str | None = None
    model: str | None = None


class Row(BaseModel):
    """A row of a list."""

    item_id: str
    rank: int
    score: float
    source: str
    title: str | None = None
    rule: str | None = None
    why: str | None = None
    because: list[dict[str, Any]] | None = None
    arm: str | None = None


class Recommendations(BaseModel):
    """A list of recommendations."""

    recommendation_id: str
    request_id: str
    model: str
    user_id: str | None
    scenario: str | None
    experiment: str | None = None
    arm: str | None = None
    items: list[Row]
    notes: list[str]


class Listing(BaseModel):
    """A list that is not personal."""

    request_id: str
    model: str
    items: list[dict[str, Any]]


class FeedbackEvent(Strict):
    """One event of feedback."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "196", "item_id": "50", "type": "like"}]}
    )

    event_id: EventId | None = None
    user_id: Id | None = None
    session_id: Id | None = None
    item_id: Id
    type: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    value: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] | None = None
    time: Moment | None = None
    recommendation_id: Annotated[str, StringConstraints(max_length=100)] | None = None
    context: dict[str, Any] | None = None


class CloudData(BaseModel):
    """What happened to which item; other keys are ignored, since the senders of such events have their own."""

    model_config = ConfigDict(extra="ignore")

    item_id: Id
    user_id: Id | None = None
    session_id: Id | None = None
    value: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] | None = None
    recommendation_id: Annotated[str, StringConstraints(max_length=100)] | None = None


class CloudEvent(BaseModel):
    """An event of feedback as a CloudEvent 1.0 in JSON: id, type and time of the envelope, the rest in ``data``."""

    model_config = ConfigDict(extra="ignore")

    specversion: Literal["1.0"]
    id: EventId
    source: str
    type: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    time: datetime | None = None
    data: CloudData

    def feedback(self) -> FeedbackEvent:
        """The event; its id is that of the sender, which is unique together with ``source``."""
        # An id that is too long with its source is shortened by a hash, which repeats as the id does.
        name = f"{self.source} {self.id}"
        name = name if len(name) <= 200 else sha256(name.encode()).hexdigest()
        time = None if self.time is None else self.time.timestamp()
        return FeedbackEvent(event_id=name, type=self.type, time=time, **self.data.model_dump())


class SegmentTrack(BaseModel):
    """An event of feedback as a ``track`` call of Segment: the item and the value are properties."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    type: Literal["track"]
    event: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    properties: CloudData
    user_id: Id | None = Field(None, alias="userId")
    session_id: Id | None = Field(None, alias="anonymousId")
    event_id: EventId | None = Field(None, alias="messageId")
    timestamp: datetime | None = None

    def feedback(self) -> FeedbackEvent:
        """The event; an anonymous id counts where there is no user id."""
        who = {"user_id": self.user_id} if self.user_id is not None else {"session_id": self.session_id}
        time = None if self.timestamp is None else self.timestamp.timestamp()
        given = {**self.properties.model_dump(), **who}
        return FeedbackEvent(event_id=self.event_id, type=self.event, time=time, **given)


class FeedbackBatch(Strict):
    """Many events."""

    events: Annotated[list[FeedbackEvent], Field(min_length=1)]


def _feedback_kind(value: Any) -> str:
    if not isinstance(value, dict):
        return "FeedbackEvent"
    if "events" in value:
        return "FeedbackBatch"
    if "specversion" in value:
        return "CloudEvent"
    return "SegmentTrack" if value.get("type") == "track" else "FeedbackEvent"


# By the keys that differ between the forms, so that an error is about the one that was meant.
Feedback = Annotated[
    Annotated[FeedbackEvent, Tag("FeedbackEvent")]
    | Annotated[FeedbackBatch, Tag("FeedbackBatch")]
    | Annotated[CloudEvent, Tag("CloudEvent")]
    | Annotated[SegmentTrack, Tag("SegmentTrack")],
    Discriminator(_feedback_kind),
]


class Accepted(BaseModel):
    """The events that are stored now."""

    request_id: str
    stored: int
    repeated: int
    event_ids: list[str]


class ItemChange(Strict):
    """Fields of an item to change."""

    title: Annotated[str, StringConstraints(max_length=1000)] | None = None
    features: dict[str, Value | list[Value] | None] | None = None
    hidden: bool | None = None
    in_stock: bool | None = None
    expires: Moment | None = None


class UserChange(Strict):
    """Fields of a user to change."""

    features: dict[str, Value | list[Value] | None] | None = None


class ImportedItem(ItemChange):
    """A line of an import of items."""

    item_id: Id


class ImportedUser(UserChange):
    """A line of an import of users."""

    user_id: Id
    deleted: bool = False  # whether the training rows of the user are ignored


class ImportedEvent(FeedbackEvent):
    """A line of an import of events."""

    seq: int | None = None  # in an export; the store gives new numbers


class Merge(Strict):
    """A session whose events become those of a user."""

    session_id: Id
    user_id: Id


class Answers(Strict):
    """Answers to onboarding questions."""

    user_id: Id | None = None
    session_id: Id | None = None
    known: list[Id] = []
    unknown: list[Id] = []
    k: Annotated[int, Field(ge=1)] | None = None


class ModelName(Strict):
    """A bundle in the folder of models, or a loaded version."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class NewKey(Strict):
    """An API key to make."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    role: Literal["read", "feedback", "admin"] = "read"
