"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp, Ollama.

`Endpoint.ask` takes many requests at once and hands every reply or failure back in the caller's thread as it comes.
What it looks after: how many requests are under way (`gate`), which troubles pass and how long to wait (`trouble`,
`waiting`), what servers do differently (`wire`), and that the key goes nowhere but to the server.
"""

from trimtab.endpoint.client import OPENAI_URL, Endpoint
from trimtab.endpoint.exchange import Failure, Reply, Request
from trimtab.endpoint.waiting import Waiting

__all__ = ["OPENAI_URL", "Endpoint", "Failure", "Reply", "Request", "Waiting"]
