"""One small file over https: bounded in size and time, whole or not at all, and never by way of another scheme."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import IO
from urllib.parse import urlsplit

MAX_BYTES = 16 * 2**20  # the largest official file is 2 MB
_CHUNK = 1 << 16  # bytes at a time, so that the size limit acts before memory is full
THIS_MACHINE = {"127.0.0.1", "::1", "localhost"}


class UnreachableError(OSError):
    """The file could not be fetched; the message says why, for people."""


def fetch(url: str, *, timeout: float = 30.0, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes behind `url` (https; http on this machine only). `timeout` seconds apply to every wait.

    Raises UnreachableError for a refusal, a time-out, a body that breaks off or that is larger than `max_bytes`.
    """
    _require_safe(url)
    request = urllib.request.Request(url, headers={"User-Agent": "trimtab"})  # noqa: S310  # the scheme was checked
    opener = urllib.request.build_opener(_SameScheme)
    try:
        with opener.open(request, timeout=timeout) as response:
            return _whole(response, max_bytes=max_bytes)
    except UnreachableError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise UnreachableError(f"{url} answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise UnreachableError(f"{url} cannot be reached: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url} broke off: {error or type(error).__name__}") from error


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirects, to safe places only: what was asked over https never comes from elsewhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
                raise UnreachableError(f"{req.full_url} redirects to another scheme: {newurl}")
            _require_safe(newurl)
        except UnreachableError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in THIS_MACHINE):
        raise UnreachableError(f"{url} is not https")


def _whole(response: http.client.HTTPResponse, *, max_bytes: int) -> bytes:
    length = response.headers.get("Content-Length")
    body = bytearray()
    while block := response.read(_CHUNK):
        body += block
        if len(body) > max_bytes:
            raise UnreachableError(f"{response.url} is larger than {max_bytes} bytes")
    if length is not None and length.isdigit() and len(body) != int(length):
        raise UnreachableError(f"{response.url} broke off after {len(body)} of {length} bytes")
    return bytes(body)
