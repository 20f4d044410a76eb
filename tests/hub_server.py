"""A stand-in for the Hugging Face Hub on loopback: the end points that `huggingface_hub` calls to push a model.

It keeps what is committed in memory and checks what the Hub checks of it: who asks, that large files arrived whole, and
that a card's front matter is one that `huggingface_hub.ModelCardData` takes. It is not the Hub: rules of the Hub that
the client does not show are not here.

    with HubServer(token="hf_x") as hub:
        subprocess.run([...], env=hub.environment)
        hub.files["me/model"]["README.md"]
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class HubServer:
    """`files` by repository and name; `private` by repository; `requests` as (method, path, token)."""

    def __init__(self, *, token: str) -> None:
        self.token = token
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.large: dict[str, bytes] = {}
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that takes this for the Hub. Plain uploads: the other kind, Xet, has servers of its own."""
        own = {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**os.environ, **own}

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        if not self._is_allowed(path):
            return
        repo = path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")[0]
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif "/preupload/" in path:
            modes = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                | {"shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._reply(200, {"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif "/commit/" in path:
            self._commit(repo, body)
        else:
            self._reply(404, {"error": path})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self._is_allowed(path):
            return
        repo = path.removeprefix("/api/models/").partition("/revision/")[0]
        if repo in self.server_hub.files:
            self._reply(200, {"id": repo, "private": self.server_hub.private[repo], "sha": "0" * 40, "siblings": []})
        else:
            self._reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def do_PUT(self) -> None:  # what the batch answer named; storage asks for no token
        body, name = self._body(), self.path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != name:
            self._reply(400, {"error": "other bytes than were announced"})
            return
        self.server_hub.large[name] = body
        self._reply(200, {})

    def _is_allowed(self, path: str) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server_hub.requests.append((self.command, path, token))
        if token == self.server_hub.token:
            return True
        self._reply(401, {"error": "Invalid credentials"})
        return False

    def _create(self, words: dict[str, Any]) -> None:
        hub = self.server_hub
        repo = f"{words['organization']}/{words['name']}"
        if repo in hub.files:
            self._reply(409, {"error": "You already created this model repo", "url": f"{hub.url}/{repo}"})
            return
        hub.files[repo] = {}
        hub.private[repo] = words.get("visibility") == "private" or bool(words.get("private"))
        self._reply(200, {"url": f"{hub.url}/{repo}", "name": repo})

    def _validate(self, content: str) -> None:
        from huggingface_hub import ModelCard
        from huggingface_hub.utils import validate_repo_id

        try:
            data = ModelCard(content, ignore_metadata_errors=False).data
            if data.base_model is not None:
                validate_repo_id(data.base_model)
        except ValueError as error:
            self._reply(400, {"errors": [{"message": str(error)}], "warnings": []})
            return
        self._reply(200, {"errors": [], "warnings": []})

    def _batch(self, words: dict[str, Any]) -> None:
        objects = [
            entry | {"actions": {"upload": {"href": f"{self.server_hub.url}/storage/{entry['oid']}", "header": {}}}}
            for entry in words["objects"]
        ]
        self._reply(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> None:
        hub = self.server_hub
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                hub.files[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[repo][value["path"]] = hub.large[value["oid"]]
        self._reply(200, {"success": True, "commitOid": "1" * 40, "commitUrl": f"{hub.url}/{repo}/commit/{'1' * 40}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, code: int, tree: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(tree).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
