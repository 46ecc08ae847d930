"""
A Hub on this machine, in memory, for tests of pushing and loading: repositories of models and data sets.

It serves the requests of `huggingface_hub` 2.4 that upload a folder and read it, plainly or as a stream. A client
needs the variables of `HubStandIn.environment` before it is imported.
`python tests/hub_stand_in.py` serves until it is interrupted.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


# Uploaded apart from the commit, as the Hub does with large files.
LARGE_FILES = (".parquet", ".safetensors", ".bin", ".pt")
_REPO_TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass
class Repository:
    """The content of each branch after each commit, and the uploaded files."""

    private: bool
    gated: str | bool = False
    """`"auto"` or `"manual"`: files are for users whom the owner admitted."""
    admitted: set[str] = field(default_factory=set)
    """Their tokens; tokens that may write may read, too."""
    branches: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=lambda: {"main": []})
    tags: dict[str, str] = field(default_factory=dict)
    sent: list[set[str]] = field(default_factory=list)
    """The files of each requested commit."""

    @property
    def commits(self) -> list[tuple[str, dict[str, bytes]]]:
        """The states of `main`."""
        return self.branches["main"]

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a state, and name it after its content and place."""
        digest = hashlib.sha1(f"{branch} {len(self.branches[branch])}".encode())
        for path in sorted(files):
            digest.update(path.encode() + hashlib.sha1(files[path]).digest())
        self.branches[branch].append((digest.hexdigest(), files))
        return digest.hexdigest()

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The state of a branch, a tag or a commit."""
        if revision in self.branches:
            return self.branches[revision][-1]
        wanted = self.tags.get(revision, revision)
        return next((one for states in self.branches.values() for one in states if one[0] == wanted), None)


class HubStandIn:
    """
    The server; a context manager that serves while it is open.

    `repositories` are by type and name, `("dataset", "org/set")`; `requests` has all requests, as `"GET /path"`.
    `tokens` have roles: `"write"` allows everything in the namespace `org`, `"read"` allows reading; other tokens have
    expired. `failures` are pairs of a pattern and a code: matching requests are refused with it.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens = {"hf_test": "write"}
        self.failures: list[tuple[str, int]] = []
        self.lock = threading.Lock()
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process that uses this Hub only."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }

    def files(self, repo_type: str, name: str) -> dict[str, bytes]:
        """The present files of a repository."""
        return self.repositories[repo_type, name].commits[-1][1]

    def __enter__(self) -> "HubStandIn":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """No log on stderr."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        body = self._body()
        asked = f"{self.command} {unquote(url.path)}"
        self.hub.requests.append(asked)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        for pattern, code in self.hub.failures:
            if re.search(pattern, asked):
                self._refuse(code, "Broken", "It is broken.")
                return
        if self._token() not in (None, *self.hub.tokens):
            self._refuse(401, None, "Invalid credentials in Authorization header")
            return
        for pattern, method in self._ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {url.path}"):
                with self.hub.lock:
                    method(self, body, query, *found.groups())
                return
        self._refuse(404, "EntryNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # as http.server wants it

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while length := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, content: Any, code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: int, reason: str | None, message: str | None = None) -> None:
        headers = {"X_Error_Message": message or reason or ""} | ({"X_Error_Code": reason} if reason else {})
        self._send({"error": message or reason}, code, **headers)

    def _token(self) -> str | None:
        """Who asks."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _may_write(self, name: str) -> bool:
        """Whether who asks may change a repository; where not, the refusal is sent."""
        role = self.hub.tokens.get(self._token() or "")
        if role is None:
            self._refuse(401, None, "Invalid username or password.")
        elif role != "write" or not name.startswith("org/"):
            namespace = name.split("/")[0]
            self._refuse(403, None, f"You don't have the rights to write to the namespace {namespace}")
        return role == "write" and name.startswith("org/")

    def _repository(self, repo_type: str, name: str) -> Repository | None:
        """A repository that who asks may know of; where there is none, the refusal is sent."""
        repository = self.hub.repositories.get((_REPO_TYPES[repo_type], name))
        if repository is None or (repository.private and self._token() is None):
            self._refuse(404 if self._token() else 401, "RepoNotFound", "Repository not found")
            return None
        return repository

    def _state(self, repo_type: str, name: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """A revision of a repository; where there is none, the refusal is sent."""
        repository = self._repository(repo_type, name)
        if repository is None:
            return None
        state = repository.at(unquote(revision))
        if state is None:
            self._refuse(404, "RevisionNotFound")
        return state

    # What is asked, in the order of an upload and a download.

    def _whoami(self, body: bytes, query: dict[str, str]) -> None:
        role = self.hub.tokens.get(self._token() or "")
        if role is None:
            self._refuse(401, None, "Invalid username or password.")
            return
        self._send({"type": "user", "name": "org", "orgs": [], "auth": {"accessToken": {"role": role}}})

    def _create(self, body: bytes, query: dict[str, str]) -> None:
        wanted = json.loads(body)
        repo_type = wanted.get("type") or "model"
        name = f"{wanted.get('organization') or 'org'}/{wanted['name']}"
        url = f"{self.hub.url}/{'' if repo_type == 'model' else repo_type + 's/'}{name}"
        if not self._may_write(name):
            return
        if (repo_type, name) in self.hub.repositories:
            self._send({"error": "exists", "url": url}, 409, X_Error_Code="RepoExists")
            return
        self.hub.repositories[repo_type, name] = Repository(wanted.get("visibility") == "private")
        self.hub.repositories[repo_type, name].commit({".gitattributes": b""})
        self._send({"url": url})

    def _validate(self, body: bytes, query: dict[str, str]) -> None:
        self._send({"errors": [], "warnings": []})

    def _settings(self, body: bytes, query: dict[str, str], repo_type: str, name: str) -> None:
        repository = self._repository(repo_type, name)
        if repository is not None and self._may_write(name):
            wanted = json.loads(body)
            repository.gated = wanted.get("gated", repository.gated)
            repository.private = wanted.get("visibility", "private" if repository.private else "public") == "private"
            self._send({"gated": repository.gated, "visibility": "private" if repository.private else "public"})

    def _refs(self, body: bytes, query: dict[str, str], repo_type: str, name: str) -> None:
        if repository := self._repository(repo_type, name):
            branches = {branch: states[-1][0] for branch, states in repository.branches.items()}

            def listed(group: str, refs: dict[str, str]) -> list[dict[str, str]]:
                return [{"name": one, "ref": f"refs/{group}/{one}", "targetCommit": oid} for one, oid in refs.items()]

            self._send(
                {"branches": listed("heads", branches), "tags": listed("tags", repository.tags), "converts": []}
            )

    def _branch(self, body: bytes, query: dict[str, str], repo_type: str, name: str, branch: str) -> None:
        state = self._state(repo_type, name, json.loads(body or b"{}").get("startingPoint", "main"))
        if state is None or not self._may_write(name):
            return
        branches = self.hub.repositories[_REPO_TYPES[repo_type], name].branches
        if unquote(branch) in branches:
            self._refuse(409, None, f"Reference {unquote(branch)} already exists")
            return
        branches[unquote(branch)] = [state]
        self._send({})

    def _tag(self, body: bytes, query: dict[str, str], repo_type: str, name: str, revision: str) -> None:
        state = self._state(repo_type, name, revision)
        if state is None or not self._may_write(name):
            return
        tags = self.hub.repositories[_REPO_TYPES[repo_type], name].tags
        tag = json.loads(body)["tag"]
        if tag in tags:
            self._refuse(409, None, f"Tag {tag} already exists")
            return
        tags[tag] = state[0]
        self._send({})

    def _preupload(self, body: bytes, query: dict[str, str], repo_type: str, name: str, revision: str) -> None:
        state = self._state(repo_type, name, revision)
        if state and self._may_write(name):
            entries = []
            for wanted in json.loads(body)["files"]:
                path = wanted["path"]
                mode = "lfs" if path.endswith(LARGE_FILES) else "regular"
                known = _object_id(path, state[1][path]) if path in state[1] else None
                entries.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
            self._send({"files": entries})

    def _batch(self, body: bytes, query: dict[str, str]) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large_files:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}"}}
            objects.append(entry)
        self._send({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def _upload(self, body: bytes, query: dict[str, str], digest: str) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            self._refuse(400, "BadUpload")
            return
        self.hub.large_files[digest] = body
        self._send({})

    def _commit(self, body: bytes, query: dict[str, str], repo_type: str, name: str, revision: str) -> None:
        state = self._state(repo_type, name, revision)
        if state is None or not self._may_write(name):
            return
        repository, branch = self.hub.repositories[_REPO_TYPES[repo_type], name], unquote(revision)
        if branch not in repository.branches:
            self._refuse(400, None, f"{branch} is no branch")
            return
        files, sent = dict(state[1]), set()
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] in ("file", "lfsFile"):
                sent.add(value["path"])
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.large_files:
                    self._refuse(400, None, f"{value['path']} was not uploaded")
                    return
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
            elif entry["key"] == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
            elif entry["key"] == "header":
                if value.get("parentCommit") not in (None, state[0]):
                    self._refuse(412, None, "A commit has happened since.")
                    return
            else:
                self._refuse(400, f"UnknownOperation{entry['key']}")
                return
        repository.sent.append(sent)
        commit = repository.commit(files, branch)
        url = f"{self.hub.url}/{'' if repo_type == 'models' else repo_type + '/'}{name}/commit/{commit}"
        self._send({"commitOid": commit, "commitUrl": url})

    def _info(
        self, body: bytes, query: dict[str, str], repo_type: str, name: str, revision: str | None = None
    ) -> None:
        if state := self._state(repo_type, name, revision or "main"):
            repository = self.hub.repositories[_REPO_TYPES[repo_type], name]
            siblings = [{"rfilename": path} for path in state[1]]
            about = {"id": name, "private": repository.private, "gated": repository.gated, "tags": []}
            self._send({**about, "sha": state[0], "siblings": siblings})

    def _tree(
        self, body: bytes, query: dict[str, str], repo_type: str, name: str, revision: str, folder: str | None = None
    ) -> None:
        state = self._state(repo_type, name, revision)
        if state is None:
            return
        prefix = f"{unquote(folder).rstrip('/')}/" if folder else ""
        deep = query.get("recursive", "").lower() in ("true", "1")
        entries: dict[str, dict[str, Any]] = {}
        for path, content in sorted(state[1].items()):
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if deep else min(2, len(parts))):
                above = prefix + "/".join(parts[:depth])
                entries[above] = {"type": "directory", "path": above, "oid": "0" * 40, "size": 0}
            if deep or len(parts) == 1:
                entries[path] = _file_entry(path, content)
        if prefix and not entries:
            self._refuse(404, "EntryNotFound")
            return
        self._send(list(entries.values()))

    def _paths_info(self, body: bytes, query: dict[str, str], repo_type: str, name: str, revision: str) -> None:
        if state := self._state(repo_type, name, revision):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])
            self._send([_file_entry(path, state[1][path]) for path in asked if path in state[1]])

    def _resolve(
        self, body: bytes, query: dict[str, str], repo_type: str | None, name: str, revision: str, path: str
    ) -> None:
        repo_type = (repo_type or "models/").rstrip("/")
        state = self._state(repo_type, name, revision)
        if state is None:
            return
        repository, token = self.hub.repositories[_REPO_TYPES[repo_type], name], self._token()
        path = unquote(path)
        if repository.gated and token not in repository.admitted and self.hub.tokens.get(token or "") != "write":
            self._refuse(403 if token else 401, "GatedRepo", "Access to this repository is restricted")
            return
        if path not in state[1]:
            self._send(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=state[0])
            return
        content = state[1][path]
        headers = {"ETag": f'"{_object_id(path, content)}"', "X_Repo_Commit": state[0], "Accept_Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or self.command == "HEAD":
            self._send(content, **headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], 206, **headers)

    _REPO = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"
    _ROUTES = [
        (r"GET /api/whoami-v2", _whoami),
        (r"POST /api/repos/create", _create),
        (r"POST /api/validate-yaml", _validate),
        (rf"PUT {_REPO}/settings", _settings),
        (rf"GET {_REPO}/refs", _refs),
        (rf"POST {_REPO}/branch/(.+)", _branch),
        (rf"POST {_REPO}/tag/(.+)", _tag),
        (rf"POST {_REPO}/preupload/(.+)", _preupload),
        (r"POST /(?:(?:datasets|spaces)/)?[^/]+/[^/]+\.git/info/lfs/objects/batch", _batch),
        (r"PUT /upload/([0-9a-f]{64})", _upload),
        (rf"POST {_REPO}/commit/(.+)", _commit),
        (rf"GET {_REPO}", _info),
        (rf"GET {_REPO}/revision/(.+)", _info),
        (rf"GET {_REPO}/tree/([^/]+)(?:/(.*))?", _tree),
        (rf"POST {_REPO}/paths-info/([^/]+)", _paths_info),
        (r"(?:GET|HEAD) /(?:(datasets/|spaces/))?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
    ]


def _object_id(path: str, content: bytes) -> str:
    if path.endswith(LARGE_FILES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _file_entry(path: str, content: bytes) -> dict[str, Any]:
    digest = _object_id(path, content)
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": digest, "size": len(content)}
    if path.endswith(LARGE_FILES):
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry


if __name__ == "__main__":
    with HubStandIn() as running:
        print(running.url, flush=True)
        threading.Event().wait()
