"""What an address may hold. Addresses are written into configurations and reports, so a secret has no place in one."""

from __future__ import annotations

from urllib.parse import urlsplit


def holds_secret(url: str) -> bool:
    """Whether there is a user, a password, a query or a fragment in it; also where it cannot be told."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    return parts.username is not None or parts.password is not None or bool(parts.query or parts.fragment)
