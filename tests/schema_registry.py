"""A Schema Registry for tests: an HTTP server that speaks what Confluent's clients and Weir use of its API.

It keeps schemas as they were registered, so that Protobuf ones, which clients register as descriptors in base64, are
given back so too (as Confluent's gives them for `?format=serialized`). It checks no compatibility: what it is asked to
keep, it keeps, as a registry with the level NONE does.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

CREDENTIALS = ("weir", "secret")


class SchemaRegistryServer:
    """status: what every request gets instead of its answer, while set. asked: requests by path."""

    def __init__(self, *, credentials: tuple[str, str] | None = None) -> None:
        self.status: int | None = None
        self.asked: Counter[str] = Counter()
        self._credentials = credentials
        self._schemas: list[dict[str, Any]] = []
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, str] = {}
        self._lock = threading.Lock()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            do_PUT = do_POST

            def _answer(self, body: dict[str, Any]) -> None:
                authorization = self.headers.get("Authorization", "")
                status, found = registry.answer(self.command, urlsplit(self.path).path, body, authorization)
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._handler = Handler
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listens, again on the port that it had before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nobody listens any more; what was registered is kept."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def answer(self, method: str, path: str, body: dict[str, Any], authorization: str) -> tuple[int, dict[str, Any]]:
        self.asked[path] += 1
        if self.status is not None:
            return self.status, {"error_code": self.status * 100, "message": "out of order"}
        if self._credentials is not None:
            pair = base64.b64encode(":".join(self._credentials).encode()).decode()
            if authorization != f"Basic {pair}":
                return 401, {"error_code": 401, "message": "Unauthorized"}
        with self._lock:
            match (method, *map(unquote, path.strip("/").split("/"))):
                case ("POST", "subjects", subject, "versions"):
                    return 200, self._register(subject, body)
                case ("POST", "subjects", subject):
                    return self._lookup(subject, body)
                case ("GET", "schemas", "ids", id) if 0 < int(id) <= len(self._schemas):
                    return 200, self._schemas[int(id) - 1]
                case ("GET", "schemas", "ids", _):
                    return 404, {"error_code": 40403, "message": "Schema not found"}
                case ("GET", "subjects", subject, "versions", number):
                    return self._version(subject, number)
                case ("PUT", "config", subject):
                    self._levels[subject] = body["compatibility"]
                    return 200, body
                case ("GET", "config", *subject):
                    return 200, {"compatibilityLevel": self._levels.get("/".join(subject), "NONE")}
        return 404, {"error_code": 404, "message": f"HTTP 404 Not Found: {method} {path}"}

    def _register(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        schema = {key: body[key] for key in ("schema", "schemaType", "references") if body.get(key)}
        if schema not in self._schemas:
            self._schemas.append(schema)
        id = self._schemas.index(schema) + 1
        versions = self._subjects.setdefault(subject, [])
        if id not in versions:
            versions.append(id)
        return {"id": id}

    def _lookup(self, subject: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        schema = {key: body[key] for key in ("schema", "schemaType", "references") if body.get(key)}
        for number, id in enumerate(self._subjects.get(subject, []), start=1):
            if self._schemas[id - 1] == schema:
                return 200, {"subject": subject, "id": id, "version": number, **schema}
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def _version(self, subject: str, number: str) -> tuple[int, dict[str, Any]]:
        versions = self._subjects.get(subject)
        if versions is None:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        place = len(versions) if number in ("latest", "-1") else int(number)
        if not 0 < place <= len(versions):
            return 404, {"error_code": 40402, "message": f"Version {number} not found."}
        id = versions[place - 1]
        return 200, {"subject": subject, "version": place, "id": id, **self._schemas[id - 1]}
