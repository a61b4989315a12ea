"""A Hub on loopback, of the standard library: what a push, a card and a load back ask for, and failures on demand.

It knows repositories of datasets and models, private ones, branches, pull requests and large files; all of it is
in memory. `HF_ENDPOINT` must be its address before anything of Hugging Face is imported.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKENS = {"hf_write": "write", "hf_read": "read"}
LICENSES = ("apache-2.0", "cc-by-4.0", "mit", "other", "unknown")


class Repo:
    """Files of every revision; `main` and others name one."""

    def __init__(self, private=False):
        self.private = private
        self.branches = {"main": {}}
        self.commits = {}
        self.pull_requests = 0
        self.log = {}
        self.commit("main", {})

    def commit(self, branch, files, title="initial commit", message=""):
        self.branches[branch] = files
        # As git's: of what it holds and what came before, because datasets caches by it.
        held = {path: hashlib.sha1(content).hexdigest() for path, content in sorted(files.items())}
        oid = hashlib.sha1(json.dumps([branch, len(self.commits), held]).encode()).hexdigest()
        self.commits[oid] = files
        self.last = {**getattr(self, "last", {}), branch: oid}
        self.log.setdefault(branch, list(self.log.get("main", []))).insert(0, (oid, title, message))
        return oid

    def files(self, revision):
        return self.commits.get(revision, self.branches.get(revision))

    def sha(self, revision):
        return revision if revision in self.commits else self.last[revision]


class FakeHub(ThreadingHTTPServer):
    """The server; `url` is its address, `requests` what it was asked, `fail` makes it fail."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.clear()

    def clear(self):
        self.repos, self.blobs, self.requests, self.failures = {}, {}, [], []
        self.faults = {}

    def fail(self, method, pattern, status=500, times=1):
        """The next `times` requests of this method whose path holds the pattern end with the status; -1: all."""
        self.failures.append([method, re.compile(pattern), status, times])

    def break_at(self, numbers, fault, wait=0):
        """The requests of these numbers, counted from now and from 0, meet a fault:

        a status, with Retry-After where `wait` is given; "hang up": no answer; "lost": it is done, and no answer
        comes; "half": half of the answer; "silent": nothing for a second. -1 is all after the last number.
        """
        self.requests.clear()
        self.faults = dict.fromkeys(numbers, (fault, wait))

    def fault(self):
        number = len(self.requests) - 1
        if -1 in self.faults and number > max(self.faults):
            return self.faults[-1]
        return self.faults.get(number)

    def files(self, name, kind="dataset", revision="main"):
        """Path to content of a repository's files."""
        return self.repos[kind, name].files(revision)

    def should_fail(self, method, path):
        for failure in self.failures:
            if failure[0] == method and failure[1].search(path) and failure[3]:
                failure[3] -= 1
                return failure[2]
        return None


def serve(hub):
    """Runs a server for as long as this process."""
    threading.Thread(target=hub.serve_forever, daemon=True).start()


class Missing(Exception):
    """Ends a request with a status, and an error code of the Hub's."""

    def __init__(self, status, code, message):
        self.status, self.code = status, code
        super().__init__(message)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: the second of two would wait for an acknowledgement

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("HEAD")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def do_DELETE(self):
        self._answer("DELETE")

    # -------------------------------------------------------------------- answer
    def _answer(self, method):
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        self.server.body = self.body
        self.server.requests.append((method, path))
        fault, wait = self.server.fault() or (None, 0)
        if fault == "silent":
            time.sleep(1.5)
        if fault in ("hang up", "silent"):
            self._hang_up()
            return
        if isinstance(fault, int):
            error = {"error": "failed on demand"}
            self._send(
                fault, error, {"X-Error-Message": "failed on demand", **({"Retry-After": wait} if wait else {})}
            )
            return
        self.is_half, self.is_lost = fault == "half", fault == "lost"
        status = self.server.should_fail(method, path)
        if status is not None:
            self._send(status, {"error": "failed on demand"})
            return
        try:
            for verbs, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method in verbs:
                    answer(self, **match.groupdict())
                    return
            raise Missing(404, "EntryNotFound", f"nothing at {method} {path}")
        except Missing as error:
            self._send(
                error.status, {"error": str(error)}, {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            )

    def _chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status, content, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if getattr(self, "is_lost", False):
            self._hang_up()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if getattr(self, "is_half", False):
            self.wfile.write(data[: len(data) // 2] if self.command != "HEAD" else b"")
            self._hang_up()
        elif self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    # --------------------------------------------------------------------- rights
    def _role(self):
        return TOKENS.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def _repo(self, kind, name, write=False):
        repo = self.server.repos.get((kind, name))
        if repo is None or (repo.private and self._role() is None):
            raise Missing(404 if self._role() else 401, "RepoNotFound", "Repository not found")
        if write and self._role() != "write":
            raise Missing(403, "", "You don't have the rights to write to this repository")
        if write and not name.startswith("me/"):
            raise Missing(403, "", f"You don't have the rights to write to {name}")
        return repo

    def _files(self, kind, name, revision):
        repo = self._repo(kind, name)
        if repo.files(revision) is None:
            raise Missing(404, "RevisionNotFound", f"Revision {revision} not found")
        return repo, repo.files(revision)

    # --------------------------------------------------------------------- routes
    def who(self):
        if self._role() is None:
            raise Missing(401, "", "Invalid username or password.")
        access = {"accessToken": {"role": self._role(), "displayName": "test"}}
        self._send(200, {"type": "user", "name": "me", "orgs": [], "auth": access})

    def create(self):
        if self._role() != "write":
            raise Missing(401 if self._role() is None else 403, "", "You need a token that may write")
        asked = json.loads(self.body)
        kind, name = asked.get("type", "model"), f"{asked.get('organization') or 'me'}/{asked['name']}"
        if asked.get("organization") not in (None, "me"):
            raise Missing(403, "", f"You don't have the rights to create a {kind} under {asked['organization']!r}")
        place = self.server.url + ("/datasets/" if kind == "dataset" else "/") + name
        if (kind, name) in self.server.repos:
            self._send(409, {"error": "You already created this repo", "url": place})
            return
        self.server.repos[kind, name] = Repo(bool(asked.get("private") or asked.get("visibility") == "private"))
        self._send(200, {"url": place, "name": name, "id": name})

    def delete(self):
        asked = json.loads(self.body)
        key = asked.get("type", "model"), f"{asked.get('organization') or 'me'}/{asked['name']}"
        self._repo(*key, write=True)
        del self.server.repos[key]
        self._send(200, {})

    def info(self, kinds, name, revision="main"):
        kind = kinds.removesuffix("s")
        repo, files = self._files(kind, name, revision or "main")
        self._send(
            200,
            {
                "_id": "1",
                "id": name,
                "sha": repo.sha(revision or "main"),
                "private": repo.private,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in sorted(files)],
            },
        )

    def preupload(self, kinds, name, revision):
        repo = self._repo(kinds.removesuffix("s"), name, write=True)
        held = repo.files(unquote(revision)) or {}
        files = json.loads(self.body)["files"]
        large = re.compile(r"\.(parquet|png|svg|safetensors|npy|bin|arrow)$")
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if large.search(file["path"]) else "regular",
                "shouldIgnore": False,
                "oid": _oid(held[file["path"]], bool(large.search(file["path"]))) if file["path"] in held else None,
            }
            for file in files
        ]
        self._send(200, {"files": modes})

    def large_files(self, prefix, name):
        self._repo("dataset" if prefix else "model", name, write=True)
        objects = []
        for each in json.loads(self.body)["objects"]:
            known = each["oid"] in self.server.blobs
            action = {} if known else {"actions": {"upload": {"href": f"{self.server.url}/blob/{each['oid']}"}}}
            objects.append({**each, **action})
        self._send(200, {"transfer": "basic", "objects": objects})

    def put(self, oid):
        self.server.blobs[oid] = self.body
        self._send(200, b"")

    def commit(self, kinds, name, revision):
        kind = kinds.removesuffix("s")
        repo = self._repo(kind, name, write=True)
        if repo.files(revision) is None:
            raise Missing(404, "RevisionNotFound", f"Revision {revision} not found")
        files, title, message = dict(repo.files(revision)), "", ""
        for line in filter(None, self.body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                title, message = value["summary"], value.get("description", "")
                if value.get("parentCommit") not in (None, repo.sha(revision)):
                    raise Missing(412, "", "A commit has happened since. Please refresh and try again.")
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
            elif entry["key"] == "deletedFolder":
                files = {path: held for path, held in files.items() if not path.startswith(value["path"])}
        url = f"{self.server.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        answer = {}
        if self.query.get("create_pr"):
            repo.pull_requests += 1
            revision = f"refs/pr/{repo.pull_requests}"
            answer["pullRequestUrl"] = f"{url}/discussions/{repo.pull_requests}"
        oid = repo.commit(revision, files, title, message)
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", **answer})

    def branch(self, kinds, name, branch):
        repo = self._repo(kinds.removesuffix("s"), name, write=True)
        if branch in repo.branches:
            self._send(409, {"error": "Reference already exists"})
            return
        repo.commit(branch, dict(repo.branches["main"]))
        self._send(200, {})

    def tree(self, kinds, name, revision, path=None):
        _, files = self._files(kinds.removesuffix("s"), name, revision)
        inside = {place: held for place, held in files.items() if not path or place.startswith(f"{path}/")}
        if path and not inside:
            raise Missing(404, "EntryNotFound", f"{path} does not exist")
        entries = [_entry(place, held) for place, held in sorted(inside.items())]
        if self.query.get("recursive", "false").lower() != "true":
            depth = path.count("/") + 2 if path else 1
            folders = sorted({"/".join(place.split("/")[:depth]) for place in inside if place.count("/") >= depth})
            entries = [entry for entry in entries if entry["path"].count("/") < depth]
            entries = [{"type": "directory", "path": folder, "size": 0, "oid": "0"} for folder in folders] + entries
        self._send(200, entries)

    def paths(self, kinds, name, revision):
        _, files = self._files(kinds.removesuffix("s"), name, revision)
        try:
            asked = json.loads(self.body)["paths"]
        except ValueError:
            asked = parse_qs(self.body.decode())["paths"]
        self._send(200, [_entry(path, files[path]) for path in asked if path in files])

    def refs(self, kinds, name):
        repo = self._repo(kinds.removesuffix("s"), name)
        found = [{"name": each, "ref": f"refs/heads/{each}", "targetCommit": repo.sha(each)} for each in repo.branches]
        self._send(200, {"branches": found, "converts": [], "tags": [], "pullRequests": []})

    def history(self, kinds, name, revision):
        repo = self._repo(kinds.removesuffix("s"), name)
        if revision not in repo.log:
            raise Missing(404, "RevisionNotFound", f"Revision {revision} not found")
        about = {"authors": [], "date": "2026-01-01T00:00:00.000Z"}
        self._send(
            200, [{"id": oid, "title": title, "message": said, **about} for oid, title, said in repo.log[revision]]
        )

    def resolve(self, prefix, name, revision, path):
        repo, files = self._files("dataset" if prefix else "model", name, revision)
        if path not in files:
            raise Missing(404, "EntryNotFound", f"{path} does not exist")
        content = files[path]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repo.sha(revision)}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span:
            start, stop = int(span[1]), int(span[2] or len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"
            self._send(206, content[start:stop], headers)
        else:
            self._send(200, content, {**headers, "Accept-Ranges": "bytes"})

    def yaml(self):
        """Whether a card's metadata holds; here, whether its licences are on the list."""
        held = yaml.safe_load(json.loads(self.body)["content"].split("---")[1]) or {}
        licenses = held.get("license") or []
        unknown = {licenses} if isinstance(licenses, str) else {*licenses}
        errors = [{"message": f'"license" must be one of {LICENSES}'}] if unknown - {*LICENSES} else []
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})


def _oid(content, is_large):
    """As git names a file: of a large one, its sha256."""
    if is_large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(path, content):
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


KIND, NAME, REVISION = r"(?P<kinds>datasets|models)", r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>refs/[\w/]+|[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", Handler.who),
    ("POST", "/api/repos/create", Handler.create),
    ("DELETE", "/api/repos/delete", Handler.delete),
    ("POST", "/api/validate-yaml", Handler.yaml),
    ("GET", rf"/api/{KIND}/{NAME}", Handler.info),
    ("GET", rf"/api/{KIND}/{NAME}/revision/{REVISION}", Handler.info),
    ("GET", rf"/api/{KIND}/{NAME}/refs", Handler.refs),
    ("GET", rf"/api/{KIND}/{NAME}/tree/{REVISION}(/(?P<path>.+))?", Handler.tree),
    ("GET", rf"/api/{KIND}/{NAME}/commits/{REVISION}", Handler.history),
    ("POST", rf"/api/{KIND}/{NAME}/paths-info/{REVISION}", Handler.paths),
    ("POST", rf"/api/{KIND}/{NAME}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"/api/{KIND}/{NAME}/commit/{REVISION}", Handler.commit),
    ("POST", rf"/api/{KIND}/{NAME}/branch/(?P<branch>[^/]+)", Handler.branch),
    ("POST", rf"/(?P<prefix>datasets/)?{NAME}\.git/info/lfs/objects/batch", Handler.large_files),
    ("PUT", r"/blob/(?P<oid>\w+)", Handler.put),
    ("GET HEAD", rf"/(?P<prefix>datasets/)?{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
)
