"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama.

`Endpoint.ask` sends many requests at once and hands every reply or failure back in the caller's thread.

client           the endpoint: an event loop in a thread, requests under way, which failures stop everything
retry            backoff with full jitter; a server's Retry-After is the least
concurrency      how many requests may be under way: fewer while the server is overloaded
response         one HTTP response, bounded in size and after decompression
server_errors    what a status or an error object means, and which parameter a model refuses
completion       what goes out and what comes back: request, reply, failure
thoughts         what a reasoning model thinks aloud is no part of its answer
base_url         what an address may hold
"""

from trimtab.endpoint.client import OPENAI_URL, Endpoint, require_packages
from trimtab.endpoint.completion import Failure, Reply, Request
from trimtab.endpoint.retry import Backoff
from trimtab.endpoint.thoughts import without_thoughts

__all__ = ["OPENAI_URL", "Backoff", "Endpoint", "Failure", "Reply", "Request", "require_packages", "without_thoughts"]
