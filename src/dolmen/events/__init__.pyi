from .embedded import EmbeddedLog
from .event import Action, CatalogueChange, Event, Features, Impression, decode, encode
from .examples import Examples, decode_examples, encode_examples
from .identity import check_identity
from .join_rules import JoinConfig
from .joiner import Joiner
from .log import DEFAULT_RETENTION, Appended, Group, Log, Record, Retention, Topic
from .sampling import corrected_logits, corrected_probabilities
from .store import Store

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
    "check_identity",
    "corrected_logits",
    "corrected_probabilities",
    "decode",
    "decode_examples",
    "encode",
    "encode_examples",
]
