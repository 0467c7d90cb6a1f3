"""A Schema Registry's HTTP API (Confluent's, which others speak too): schemas by their ids. All calls block."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

TIMEOUT_S = 3.0
_UNKNOWN = frozenset({40401, 40402, 40403})
_DEEPEST = 16


class RegistryAway(Exception):
    """No answer that can be used: the registry is away, refuses the credentials, or is none. Worth trying again."""


class UnknownSchema(Exception):
    """The registry says that it has no such schema."""


@dataclass(frozen=True)
class Schema:
    """kind: AVRO, PROTOBUF or JSON. text: of PROTOBUF, a FileDescriptorProto in base64. references: by their names."""

    id: int
    kind: str
    text: str
    references: tuple[tuple[str, Schema], ...] = ()


class SchemaRegistry:
    """urls: of the same registry, tried in order. ca: certificates to trust beside the system's."""

    def __init__(
        self,
        urls: Sequence[str],
        username: str | None = None,
        password: str | None = None,
        ca: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._timeout_s = timeout_s
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if username is not None:
            pair = base64.b64encode(f"{username}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        context = ssl.create_default_context(cafile=str(ca)) if ca else None
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def schema(self, id: int) -> Schema:
        """The schema with what it refers to. Raises UnknownSchema or RegistryAway."""
        try:
            return self._schema(id, self._get(f"/schemas/ids/{id}?format=serialized"), 0)
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryAway(f"the answer about schema {id} cannot be read: {error!r}") from error

    def _schema(self, id: int, found: dict[str, Any], depth: int) -> Schema:
        if depth > _DEEPEST:
            raise RegistryAway(f"schema {id} refers to others more than {_DEEPEST} deep")
        kind, text = found.get("schemaType", "AVRO"), found.get("schema")
        if not isinstance(text, str) or not isinstance(kind, str):
            raise RegistryAway(f"the answer about schema {id} holds no schema")
        references = []
        for reference in found.get("references") or ():
            subject, version = quote(str(reference["subject"]), safe=""), reference["version"]
            other = self._get(f"/subjects/{subject}/versions/{version}?format=serialized")
            references.append((str(reference["name"]), self._schema(int(other.get("id", 0)), other, depth + 1)))
        return Schema(id, kind, text, tuple(references))

    def _get(self, path: str) -> dict[str, Any]:
        failures = []
        for url in self._urls:
            try:
                request = urllib.request.Request(url + path, headers=self._headers)  # noqa: S310  checked in settings
                with self._opener.open(request, timeout=self._timeout_s) as answer:
                    return _object(answer.read(), url)
            except urllib.error.HTTPError as error:
                with error:
                    _refused(error)
                failures.append(f"{url}: {error.code} {error.reason}")
            except (OSError, ValueError, HTTPException, RegistryAway) as error:
                failures.append(f"{url}: {getattr(error, 'reason', error)}")
        raise RegistryAway("; ".join(failures))


def _refused(error: urllib.error.HTTPError) -> None:
    """UnknownSchema where a registry says it; a 404 of a wrong address has no such code."""
    if error.code != 404:
        return
    try:
        found = json.loads(error.read())
    except (OSError, ValueError):
        return
    if isinstance(found, dict) and found.get("error_code") in _UNKNOWN:
        raise UnknownSchema(str(found.get("message", "not found")))


def _object(body: bytes, url: str) -> dict[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise RegistryAway(f"{url} answers with something else than an object")
    return found
