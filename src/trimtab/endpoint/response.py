"""One HTTP response, read with a bound: servers, and proxies before them, may send anything in any amount."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from trimtab.endpoint.retry import RequestError

if TYPE_CHECKING:
    from openai import DefaultAsyncHttpxClient


def bounded_http_client(most_bytes: int, **settings: Any) -> DefaultAsyncHttpxClient:
    """The client library's own HTTP client; a body of more than `most_bytes`, unpacked, is a transient RequestError."""
    from openai import DefaultAsyncHttpxClient

    class BoundedClient(DefaultAsyncHttpxClient):
        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:  # noqa: ARG002
            response = await super().send(request, stream=True, **options)
            try:
                body = await _body(response, most_bytes)
            finally:
                await response.aclose()
            headers = [pair for pair in response.headers.multi_items() if pair[0].lower() not in _DESCRIBE_THE_BODY]
            return type(response)(response.status_code, headers=headers, content=body, request=request)

    return BoundedClient(headers={"accept-encoding": "gzip"}, **settings)


_DESCRIBE_THE_BODY = {"content-encoding", "content-length", "transfer-encoding"}


async def _body(response: Any, most_bytes: int) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "x-gzip", "deflate"}:  # nested ones grow a million-fold in one step
        raise RequestError("reply", f"the reply is packed as {encoding[:40]}, which was not asked for")
    unpack = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk if unpack is None else unpack.decompress(chunk, most_bytes + 1 - len(body))
            if len(body) > most_bytes:
                raise RequestError("reply", f"the reply is larger than {most_bytes:,} bytes")
    except zlib.error as error:
        raise RequestError("reply", f"the reply cannot be unpacked: {error}") from error
    return bytes(body)
