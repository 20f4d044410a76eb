"""JSON in the two forms that are compared and hashed."""

from __future__ import annotations

import hashlib
import json


def compact_json(value: object) -> str:
    """Without spaces, keys in the order that they came in: templates write tools and calls as they stand."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """sha256 (64 hex digits) of a JSON-able value in canonical form (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
