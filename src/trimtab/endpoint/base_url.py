"""What an address may hold. Addresses are written into configurations and reports, so a secret has no place in one."""

from __future__ import annotations

from urllib.parse import urlsplit

from trimtab.errors import ConfigError
from trimtab.progress import printable


def holds_secret(url: str) -> bool:
    """Whether it has a user, a password, a query or a fragment; also where it cannot be parsed."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    return parts.username is not None or parts.password is not None or bool(parts.query or parts.fragment)


def checked_base_url(url: str) -> str:
    """The base URL without a slash at its end. Raises ConfigError for what cannot be one, or holds a secret."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{printable(url)!r} is no base URL", remedy="give one such as http://127.0.0.1:8000/v1")
    if holds_secret(url):
        raise ConfigError(
            f"the base URL for {parts.hostname} holds a password, a query or a fragment",
            remedy="give the address alone, and the key in OPENAI_API_KEY",
        )
    return url.rstrip("/")
