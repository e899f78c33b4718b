"""What happened: events, the log they lie in, and the joiner that makes examples of them."""

from dolmen.events.embedded import EmbeddedLog
from dolmen.events.event import Action, CatalogueChange, Event, Features, Impression, decode, encode
from dolmen.events.examples import Examples, decode_examples, encode_examples
from dolmen.events.joiner import JoinConfig, Joiner
from dolmen.events.log import DEFAULT_RETENTION, Appended, Group, Log, Record, Retention, Topic
from dolmen.events.sampling import corrected_logits, corrected_probabilities
from dolmen.events.store import Store

__all__ = [
    "DEFAULT_RETENTION",
    "Action",
    "Appended",
    "CatalogueChange",
    "EmbeddedLog",
    "Event",
    "Examples",
    "Features",
    "Group",
    "Impression",
    "JoinConfig",
    "Joiner",
    "Log",
    "Record",
    "Retention",
    "Store",
    "Topic",
    "corrected_logits",
    "corrected_probabilities",
    "decode",
    "decode_examples",
    "encode",
    "encode_examples",
]
