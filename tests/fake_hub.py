"""A stand-in of the Hugging Face hub on this machine: as much of its HTTP interface as one commit of files needs.

It takes large files by LFS, as the hub does from clients without hf_xet, and nothing by Xet: of that there is no server
to be had. What it says was written from what huggingface_hub 2.4 sends and reads.
"""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

from tests.loopback import running

LFS = (".safetensors",)  # by their ending, as .gitattributes of a new repository has it


class Hub(ThreadingHTTPServer):
    """repos: OWNER/NAME -> {private, files: name -> bytes, commits: messages}. tokens: of the requests. me: whose token
    it is. refuses: a status that a commit gets in place of being taken."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.objects, self.tokens, self.me, self.refuses = {}, {}, set(), "me", None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        repo = self.repo("/api/models/")
        found = self.server.repos.get(repo)
        if found is None:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        files = [{"rfilename": name} for name in found["files"]]
        return self.answer(200, {"id": repo, "private": found["private"], "siblings": files, "tags": []})

    def do_PUT(self):
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer(200, {})

    def do_POST(self):
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            return self.create(json.loads(self.body()))
        if self.path == "/api/validate-yaml":
            front = yaml.safe_load(json.loads(self.body())["content"].split("---\n")[1])
            lacking = [f'"{name}" is missing' for name in ("library_name", "model-index") if name not in front]
            errors = [{"message": message} for message in lacking]
            return self.answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(self.body())["files"]
            mode = {file["path"]: "lfs" if file["path"].endswith(LFS) else "regular" for file in files}
            told = [{"path": p, "uploadMode": m, "shouldIgnore": False, "oid": None} for p, m in mode.items()]
            return self.answer(200, {"files": told})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(self.body())["objects"]
            told = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}", "header": {}}}}
                for one in objects
            ]
            return self.answer(200, {"transfer": "basic", "objects": told})
        if "/commit/" in self.path:
            return self.commit([json.loads(line) for line in self.body().splitlines()])
        return self.answer(404, {"error": f"no such path: {self.path}"})

    def create(self, asked):
        repo = f"{asked.get('organization') or self.server.me}/{asked['name']}"
        url = {"url": f"{self.server.url}/{repo}", "name": repo}
        if repo in self.server.repos:
            return self.answer(409, {"error": "You already created this model repo", **url})
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.server.repos[repo] = {"private": private, "files": {}, "commits": []}
        return self.answer(200, url)

    def commit(self, lines):
        if self.server.refuses:
            return self.answer(self.server.refuses, {"error": "You have no write access to this repository"})
        name = self.repo("/api/models/")
        repo, files = self.server.repos[name], {}
        for line in lines:
            said = line["value"]
            match line["key"]:
                case "header":
                    repo["commits"].append(said["summary"])
                case "file":
                    files[said["path"]] = base64.b64decode(said["content"])
                case "lfsFile":
                    files[said["path"]] = self.server.objects[said["oid"]]
        repo["files"] |= files
        oid = f"{len(repo['commits']):040x}"
        url = f"{self.server.url}/{name}/commit/{oid}"
        return self.answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def repo(self, before):
        return "/".join(self.path.removeprefix(before).split("?")[0].split("/")[:2])

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status, content, headers=None):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def serve():
    return running(Hub())
