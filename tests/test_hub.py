"""The Hugging Face Hub: load, save and push, against a Hub of our own on this machine, and every failure in one line."""

import base64
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image

import scaleseg
from conftest import CLASSES, draw_pair, small_config, small_model
from scaleseg import download
from scaleseg.checkpoint import load, read_config, save
from scaleseg.config import merge, to_dict
from scaleseg.errors import UserError
from scaleseg.model import ScaleAware, create_model

# the library's own way of uploading, told to those who wrote it
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "hf_a_good_token"
"""The one that the Hub of these tests knows."""


class Repository:
    """Branches of commits of files; a commit is named as git names it, by forty hexadecimal digits."""

    def __init__(self, files: dict[str, bytes], *, private: bool = False, gated: bool = False) -> None:
        self.private, self.gated = private, gated
        self.commits: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []
        self.branches: dict[str, str] = {}
        self.commit("main", files, "first")

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        name = hashlib.sha1(repr((sorted(content.items()), len(self.commits))).encode()).hexdigest()
        self.commits[name] = content
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


class Hub(ThreadingHTTPServer):
    """What huggingface_hub needs of the Hub's interface; it writes down who asked for what."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.status = 0  # instead of every answer
        self.delay = 0.0
        self.cut: set[str] = set()  # files that never arrive whole
        self.read_only = self.storage_full = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files_asked(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.asked if "/resolve/" in path}

    def reached(self) -> bool:
        """Whether anything but the library's own affairs was asked for."""
        return any("agent-harnesses" not in path for path in self.asked)


class Answer(BaseHTTPRequestHandler):
    """One request; the connection is closed after it."""

    server: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        body = self.body()
        time.sleep(self.server.delay)
        if self.server.status:
            self.reply(self.server.status, {"error": "as this test wants it"})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path):
            self.file(*match.groups())
        elif path.startswith("/large/"):
            self.large_file(path.removeprefix("/large/"), body)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, {"error": "Invalid username or password."})
        else:
            self.api(path, json.loads(body) if body and "commit/" not in path else {}, body)

    def body(self) -> bytes:
        """What was sent along; older versions send a commit in pieces."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def file(self, name: str, revision: str, filename: str) -> None:
        repository = self.server.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            return self.reply(404 if known else 401, {}, {"X-Error-Code": "RepoNotFound"})
        if repository.gated:
            return self.reply(403, {}, {"X-Error-Code": "GatedRepo"})
        commit = repository.resolve(revision)
        if commit is None:
            return self.reply(404, {}, {"X-Error-Code": "RevisionNotFound"})
        if filename not in repository.commits[commit]:
            return self.reply(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = repository.commits[commit][filename]
        digest = hashlib.sha256(content).hexdigest()
        self.send(content, filename, {"X-Repo-Commit": commit, "ETag": f'"{digest}"'})
        return None

    def send(self, content: bytes, filename: str, headers: dict[str, str]) -> None:
        """The content, or from where the asker broke off; of a file that is cut only the first third, once."""
        begin = int(re.sub(r"\D", "", (self.headers.get("Range") or "").partition("-")[0]) or 0)
        self.send_response(206 if begin else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "GET":
            end = len(content) // 3 if filename in self.server.cut else len(content)
            self.wfile.write(content[begin:end])

    def large_file(self, oid: str, body: bytes) -> None:
        if self.server.storage_full:
            return self.reply(403, {"error": "no space left on your account"})
        if hashlib.sha256(body).hexdigest() != oid:
            return self.reply(400, {"error": "another content"})
        self.server.large[oid] = body
        return self.reply(200, {})

    def api(self, path: str, document: dict, body: bytes) -> None:
        repositories = self.server.repositories
        if path == "/api/repos/create":
            name = f"{document['organization']}/{document['name']}"
            if self.server.read_only:
                return self.reply(403, {"error": "You don't have the rights to create a model under the namespace"})
            if name in repositories:
                exists = {"error": "You already created this model repo", "url": f"{self.server.address}/{name}"}
                return self.reply(409, exists)
            private = document.get("visibility") == "private" or document.get("private") is True
            repositories[name] = Repository({".gitattributes": b""}, private=private)
            return self.reply(200, {"url": f"{self.server.address}/{name}"})
        if path == "/api/validate-yaml":
            head = yaml.safe_load(document["content"].split("---")[1])
            if head.get("license") == "none of yours":
                return self.reply(400, {"errors": [{"message": '"license" must be one of [mit, ...]'}], "warnings": []})
            return self.reply(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.reply(200, {"transfer": "basic", "objects": [self.place(item) for item in document["objects"]]})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/(.+))?", path)
        if match is None or match[1] not in repositories:
            return self.reply(404, {}, {"X-Error-Code": "RepoNotFound"})
        return self.of_repository(match[1], match[2], match[3], document, body)

    def place(self, item: dict) -> dict:
        upload = {"href": f"{self.server.address}/large/{item['oid']}", "header": {}}
        return {"oid": item["oid"], "size": item["size"], "authenticated": True, "actions": {"upload": upload}}

    def of_repository(self, name: str, verb: str | None, revision: str, document: dict, body: bytes) -> None:
        repository = self.server.repositories[name]
        if verb in (None, "revision"):
            sha = repository.resolve(revision or "main")
            return self.reply(200, {"id": name, "sha": sha, "private": repository.private, "siblings": [], "tags": []})
        if verb == "branch":
            if revision in repository.branches:
                return self.reply(409, {"error": "Reference already exists"})
            repository.branches[revision] = repository.branches["main"]
            return self.reply(200, {})
        if verb == "preupload":
            if repository.resolve(revision) is None:
                return self.reply(404, {}, {"X-Error-Code": "RevisionNotFound"})
            kinds = {True: "lfs", False: "regular"}
            files = [
                {"path": f["path"], "uploadMode": kinds[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                for f in document["files"]
            ]
            return self.reply(200, {"files": files})
        assert verb == "commit"
        files, message = {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            else:
                is_large = line["key"] == "lfsFile"
                content = self.server.large[value["oid"]] if is_large else base64.b64decode(value["content"])
                files[value["path"]] = content
        commit = repository.commit(revision, files, message)
        url = f"{self.server.address}/{name}/commit/{commit}"
        return self.reply(200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None, "success": True})

    def reply(self, status: int, document: dict, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def close_sessions() -> None:
    """huggingface_hub keeps connections for the whole process."""
    from huggingface_hub.utils import _http

    getattr(_http, "close_session", getattr(_http, "reset_sessions", None))()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the library is imported; older versions keep the template in the other module."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on this machine, an empty cache, no token; the library read its environment when it was imported."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    with Hub() as server:
        point_at(server.address, monkeypatch)
        settings = {
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # uploads go by LFS, which a server can be written for
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value, raising=False)
        close_sessions()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    close_sessions()


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def cats(hub: Hub, tmp_path: Path) -> Repository:
    """`org/cats` on the Hub: a model, and beside it all that must never be fetched."""
    save(tmp_path / "cats", small_model(), small_config(), training_state={"step": 1})
    junk = {
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"raise SystemExit",
        "model.pkl": b"pickle",
        "README.md": b"x",
    }
    hub.repositories["org/cats"] = Repository({**files_of(tmp_path / "cats"), **junk})
    return hub.repositories["org/cats"]


def same(one: ScaleAware, other: ScaleAware) -> bool:
    own, others = one.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)


# names


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("org/cats", ("org/cats", None)),
        ("org/cats@v1", ("org/cats", "v1")),
        ("org/cats@refs/pr/3", ("org/cats", "refs/pr/3")),
        ("a-b.c/d_e.f", ("a-b.c/d_e.f", None)),
    ],
)
def test_a_hub_id_is_an_organisation_a_name_and_perhaps_a_revision(name: str, parts: tuple[str, str | None]) -> None:
    assert download.parse(name) == parts


@pytest.mark.parametrize(
    "name",
    [
        "cats",
        "./cats",
        "../cats",
        "/org/cats",
        "org/cats/best",
        "org/",
        "/cats",
        "org/cats@",
        "a b/c",
        "a/b--c",
        "a/..b",
        "",
    ],
)
def test_what_can_only_be_a_path_is_no_hub_id(name: str) -> None:
    assert download.parse(name) is None


# loading


def test_a_model_of_the_hub_is_the_one_that_was_put_there(cats: Repository) -> None:
    assert same(load("org/cats"), small_model())


def test_nothing_but_the_two_files_is_ever_asked_for(cats: Repository, hub: Hub) -> None:
    scaleseg.from_pretrained("org/cats")
    assert {path for path in hub.asked if "agent-harnesses" not in path} == {
        "/org/cats/resolve/main/config.json",
        f"/org/cats/resolve/{cats.branches['main']}/model.safetensors",
    }


def test_a_second_load_downloads_nothing(cats: Repository, hub: Hub) -> None:
    load("org/cats")
    hub.asked.clear()
    load("org/cats")
    assert hub.files_asked() == {"config.json"}  # only whether there is a newer one


@pytest.mark.parametrize("revision", ["v1", "branch/with/slashes", "a commit"])
def test_a_revision_is_that_revision(revision: str, cats: Repository, tmp_path: Path) -> None:
    save(tmp_path / "older", small_model(seed=5), small_config())
    commit = cats.commit(revision, files_of(tmp_path / "older"))
    revision = commit if revision == "a commit" else revision
    assert same(scaleseg.from_pretrained("org/cats", revision=revision), small_model(seed=5))
    assert same(load(f"org/cats@{revision}"), small_model(seed=5))
    assert same(load("org/cats"), small_model())


def test_two_revisions_at_once_are_refused(cats: Repository) -> None:
    with pytest.raises(UserError, match=r"revision is 'v2', but 'org/cats@v1' names another"):
        scaleseg.from_pretrained("org/cats@v1", revision="v2")


def test_a_push_between_two_files_does_not_mix_them(
    cats: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "newer", small_model("max", seed=5), small_config(fusion="max"))
    original = download.HubModel.fetch

    def push_first(model: download.HubModel, filename: str) -> Path:
        cats.commit("main", files_of(tmp_path / "newer"))
        return original(model, filename)

    monkeypatch.setattr(download.HubModel, "fetch", push_first)
    assert same(load("org/cats"), small_model())


def test_a_newer_version_is_fetched(cats: Repository, tmp_path: Path) -> None:
    load("org/cats")
    save(tmp_path / "newer", small_model(seed=5), small_config())
    cats.commit("main", files_of(tmp_path / "newer"))
    assert same(load("org/cats"), small_model(seed=5))


def test_another_cache_is_used(cats: Repository, tmp_path: Path) -> None:
    scaleseg.from_pretrained("org/cats", cache_dir=tmp_path / "mine")
    assert (tmp_path / "mine" / "models--org--cats").is_dir()
    assert not (tmp_path / "cache").exists()


def test_a_private_model_opens_with_the_token(cats: Repository) -> None:
    cats.private = True
    assert same(scaleseg.from_pretrained("org/cats", token=TOKEN), small_model())


def test_a_token_of_the_environment_opens_it_too(cats: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    cats.private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert same(load("org/cats"), small_model())


# what wins


def test_a_folder_of_that_name_wins_over_the_hub(
    cats: Repository, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("org/cats"), small_model(seed=5), small_config())
    assert same(load("org/cats"), small_model(seed=5))
    assert not hub.reached()


def test_a_folder_without_a_checkpoint_is_not_asked_of_the_hub(
    cats: Repository, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/cats").mkdir(parents=True)
    with pytest.raises(UserError, match=r"'org/cats' is no checkpoint folder \(with config\.json\)"):
        load("org/cats")
    assert not hub.reached()


def test_a_path_is_never_asked_of_the_hub(cats: Repository, hub: Hub) -> None:
    with pytest.raises(UserError, match="no checkpoint folder"):
        load(Path("org/cats"))
    assert not hub.reached()


def test_a_revision_of_what_is_here_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "cats", small_model(), small_config())
    with pytest.raises(UserError, match="only models on the Hub have revisions"):
        scaleseg.from_pretrained(tmp_path / "cats", revision="v1")


# failures, each in one line


def failure(name: str = "org/cats", **options: object) -> str:
    """The one line that loading says."""
    with pytest.raises(UserError) as caught:
        scaleseg.from_pretrained(name, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_wrong_local_path_is_told_all_that_was_tried(hub: Hub) -> None:
    line = failure("runs/cats")
    for part in (
        "'runs/cats' is no checkpoint folder (with config.json)",
        f"no bundled model; those are: {', '.join(scaleseg.list_bundled())}",
        f"as a Hub id: there is no runs/cats at {hub.address}, or it is private",
    ):
        assert part in line


def test_a_wrong_name_costs_one_question(hub: Hub) -> None:
    failure("runs/cats")
    assert [path for path in hub.asked if "agent-harnesses" not in path] == ["/runs/cats/resolve/main/config.json"]


def test_a_private_model_without_a_token_says_how_to_log_in(cats: Repository) -> None:
    cats.private = True
    assert "log in if it is private (hf auth login, or set HF_TOKEN)" in failure()


def test_a_gated_model_says_where_to_ask(cats: Repository, hub: Hub) -> None:
    cats.gated = True
    assert f"org/cats is gated; ask for access at {hub.address}/org/cats" in failure()


def test_an_unknown_revision_is_named(cats: Repository) -> None:
    assert "org/cats has no revision 'v9'" in failure("org/cats@v9")


@pytest.mark.parametrize("filename", ["config.json", "model.safetensors"])
def test_a_file_that_is_missing_there_is_named(filename: str, cats: Repository) -> None:
    del cats.commits[cats.branches["main"]][filename]
    assert f"org/cats on the Hub has no {filename}" in failure()


def test_the_parameters_of_a_stranger_s_model_are_not_fetched(cats: Repository, hub: Hub) -> None:
    cats.commit("main", {"config.json": b'{"architectures": ["BertModel"]}'})
    assert "org/cats on the Hub is no model of scaleseg" in failure()
    assert hub.files_asked() == {"config.json"}


@pytest.mark.parametrize(
    ("status", "message"), [(401, "or it is private"), (403, "token"), (429, "too many"), (500, "500"), (503, "503")]
)
def test_an_answer_of_refusal_is_one_line(status: int, message: str, cats: Repository, hub: Hub) -> None:
    hub.status = status
    assert message in failure()


def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's address be one where nobody listens."""
    point_at("http://127.0.0.1:9", monkeypatch)


def test_a_hub_out_of_reach_is_told_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(monkeypatch)
    begin = time.monotonic()
    assert "as a Hub id: http://127.0.0.1:9 cannot be reached" in failure("runs/cats")
    assert time.monotonic() - begin < 5


def test_a_hub_that_is_too_slow_is_told(cats: Repository, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.delay = 1.0
    assert f"{hub.address} cannot be reached" in failure()


def test_a_hub_out_of_reach_leaves_what_is_in_the_cache(
    cats: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load("org/cats")
    unreachable(monkeypatch)
    with caplog.at_level(logging.WARNING, "scaleseg"):
        assert same(load("org/cats"), small_model())
    assert f"taking org/cats from the cache (commit {cats.branches['main'][:7]})" in caplog.text


def test_half_a_model_in_the_cache_is_told_at_once(
    cats: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("org/cats")
    next((tmp_path / "cache").rglob("snapshots/*/model.safetensors")).unlink()
    unreachable(monkeypatch)
    begin = time.monotonic()
    assert "cannot be reached and the cache has no model.safetensors of org/cats" in failure()
    assert time.monotonic() - begin < 5


def test_a_hub_that_is_too_busy_leaves_what_is_in_the_cache(cats: Repository, hub: Hub) -> None:
    load("org/cats")
    hub.status = 429
    assert same(load("org/cats"), small_model())


def test_offline_the_cache_is_enough(cats: Repository, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load("org/cats")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_sessions()
    assert same(load("org/cats"), small_model())
    assert hub.asked == []


def test_offline_without_a_copy_names_the_variable(cats: Repository, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_sessions()
    assert "HF_HUB_OFFLINE is set and the cache has no copy of org/cats" in failure()


def test_a_server_that_is_no_hub_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 200
    assert f"{hub.address} does not answer as a Hub does; check HF_ENDPOINT and your proxy" in failure()


def test_a_download_that_breaks_off_is_one_line_and_can_be_repeated(
    cats: Repository, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut = {"model.safetensors"}
    with monkeypatch.context() as impatient:
        impatient.setattr(time, "sleep", lambda seconds: None)
        assert f"org/cats: {hub.address} cannot be reached or broke off" in failure()
    hub.cut = set()
    assert same(load("org/cats"), small_model())


def test_a_cache_that_cannot_be_written_is_named(cats: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    line = failure(cache_dir=tmp_path / "file")
    assert "the cache cannot be used" in line
    assert str(tmp_path / "file") in line


def test_a_token_that_is_no_header_is_not_shown(cats: Repository) -> None:
    assert "secret" not in failure(token="a\nsecret")


def test_the_environment_means_what_it_means_to_huggingface_hub(cats: Repository, hub: Hub, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_HOME are read when the library is imported, so this needs a process of its own."""
    code = "from scaleseg import download; print(download.find('org/cats', None, None, None).folder)"
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_CACHE", None)
    run = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=60)
    assert Path(run.stdout.decode().strip()).is_relative_to(tmp_path / "home" / "hub" / "models--org--cats")


# other classes


def test_the_same_number_of_classes_keeps_everything(tmp_path: Path) -> None:
    save(tmp_path / "cats", small_model(), small_config())
    said: list[str] = []
    model = scaleseg.from_pretrained(tmp_path / "cats", num_classes=3, say=said.append)
    assert (same(model, small_model()), model.classes, said) == (True, CLASSES, [])


@pytest.mark.parametrize(
    ("wish", "classes"),
    [
        ({"num_classes": 5}, ("0", "1", "2", "3", "4")),
        ({"classes": ["sky", "cat"]}, ("sky", "cat")),
        ({"classes": ("sky", "cat", "dog"), "num_classes": 3}, ("sky", "cat", "dog")),
    ],
)
def test_other_classes_renew_the_head_and_nothing_else(
    wish: dict[str, object], classes: tuple[str, ...], cats: Repository
) -> None:
    model = scaleseg.from_pretrained("org/cats", say=lambda line: None, **wish)
    source, own = small_model().state_dict(), model.state_dict()
    renewed = {
        name for name in own if own[name].shape != source[name].shape or not torch.equal(own[name], source[name])
    }
    assert (model.classes, renewed) == (classes, {"segmenter.head.weight", "segmenter.head.bias"})


def test_what_is_fresh_is_said_in_one_line(cats: Repository) -> None:
    said: list[str] = []
    scaleseg.from_pretrained("org/cats", num_classes=5, say=said.append)
    assert said == [
        "org/cats: 5 classes instead of 3; fresh, to be trained: segmenter.head.weight, segmenter.head.bias"
    ]


def test_a_fresh_head_repeats_with_the_seed(cats: Repository) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return scaleseg.from_pretrained("org/cats", num_classes=5, say=lambda line: None).segmenter.head.weight

    assert torch.equal(head(3), head(3))
    assert not torch.equal(head(3), head(4))


def test_a_model_for_other_classes_is_in_evaluation_mode(cats: Repository) -> None:
    assert not scaleseg.from_pretrained("org/cats", num_classes=5, say=lambda line: None).training


@pytest.mark.parametrize(
    "wish", [{"num_classes": 0}, {"num_classes": 256}, {"classes": ()}, {"classes": ("a", "b"), "num_classes": 3},
             {"classes": ("a", "a")}],
)  # fmt: skip
def test_wrong_classes_are_the_users_error(wish: dict[str, object], cats: Repository) -> None:
    assert "class" in failure("org/cats", **wish)


# saving


def test_a_model_built_in_python_comes_back_bit_for_bit(tmp_path: Path) -> None:
    folder = scaleseg.save_pretrained(small_model(), tmp_path / "mine")
    assert same(load(folder), small_model())
    assert sorted(files_of(folder)) == ["README.md", "config.json", "model.safetensors"]


def test_the_card_that_lies_beside_a_checkpoint_goes_along(tmp_path: Path) -> None:
    first = scaleseg.save_pretrained(small_model(), tmp_path / "first")
    (first / "README.md").write_text("# Cats\n\nTrained on mine.\n")
    written = (scaleseg.save_pretrained(first, tmp_path / "second", license="cc0-1.0") / "README.md").read_text()
    assert written.startswith("---\nlibrary_name: scaleseg")
    assert 'license: "cc0-1.0"' in written
    assert written.endswith("# Cats\n\nTrained on mine.\n")


def test_a_model_built_in_python_claims_no_training(tmp_path: Path) -> None:
    folder = scaleseg.save_pretrained(small_model(), tmp_path / "mine")
    assert "train" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("fusion", ["average", "max", "attention"])
def test_what_comes_back_answers_alike(fusion: str, tmp_path: Path) -> None:
    model, images = small_model(fusion), torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    again = scaleseg.from_pretrained(scaleseg.save_pretrained(model, tmp_path / "mine"))
    with torch.no_grad():
        torch.testing.assert_close(again(images).at(), model(images).at())
    assert (again.classes, again.scales) == (model.classes, model.scales)


def test_a_model_for_other_classes_can_be_saved(cats: Repository, tmp_path: Path) -> None:
    model = scaleseg.from_pretrained("org/cats", classes=("sky", "cat"), say=lambda line: None)
    assert same(load(scaleseg.save_pretrained(model, tmp_path / "mine")), model)


def test_half_precision_is_half_as_large(tmp_path: Path) -> None:
    whole, half = (
        scaleseg.save_pretrained(small_model(), tmp_path / name, dtype=dtype) / "model.safetensors"
        for name, dtype in (("whole", None), ("half", torch.float16))
    )
    assert half.stat().st_size < 0.75 * whole.stat().st_size


def test_a_checkpoint_stays_as_it_is_stored(tmp_path: Path) -> None:
    """Half precision is not blown up, and the bits are the same."""
    save(tmp_path / "half", small_model(), small_config(), dtype=torch.float16)
    folder = scaleseg.save_pretrained(tmp_path / "half", tmp_path / "copy")
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "half" / "model.safetensors").read_bytes()


def with_paths() -> scaleseg.Config:
    """Settings as they are after training: every one that may hold a path does."""
    settings = to_dict(small_config(pretrained="/home/me/vgg16.safetensors"))
    settings["data"] |= {
        "root": "/home/me/VOC",
        "train": ["/home/me/a.zip"],
        "val": "/home/me/b",
        "dev": "/home/me/dev.txt",
    }
    settings["data"]["label_map"] = {7: 1, 255: 255}
    settings["train"] |= {"init_from": "/home/me/runs/older/best", "steps": 70}
    return merge(settings)


def test_no_path_of_this_machine_is_published(tmp_path: Path) -> None:
    about = {"step": 7, "log": "/home/me/log.txt", "nested": {"file": "/home/me/x", "mIoU": 0.5}}
    save(tmp_path / "run", small_model(), with_paths(), about=about)
    folder = scaleseg.save_pretrained(tmp_path / "run", tmp_path / "published")
    written = b"".join(files_of(folder).values())
    assert b"/home/me" in (tmp_path / "run" / "config.json").read_bytes()
    assert b"/home/me" not in written
    assert str(tmp_path).encode() not in written


def test_what_is_no_path_is_kept(tmp_path: Path) -> None:
    save(tmp_path / "run", small_model(), with_paths(), about={"step": 7, "dev": {"mIoU": 0.5}})
    folder = scaleseg.save_pretrained(tmp_path / "run", tmp_path / "published", about={"val_mIoU": 0.25})
    config = read_config(folder)
    assert (config.data.label_map, config.train.steps, config.model.pretrained) == ({7: 1, 255: 255}, 70, "none")
    about = json.loads((folder / "config.json").read_text())["about"]
    assert about == {"step": 7, "dev": {"mIoU": 0.5}, "val_mIoU": 0.25}


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "clone" / ".git").mkdir(parents=True)
    (tmp_path / "clone" / "README.md").write_text("mine")
    for seed in (1, 2):
        scaleseg.save_pretrained(small_model(seed=seed), tmp_path / "clone")
    assert same(load(tmp_path / "clone"), small_model(seed=2))
    assert (tmp_path / "clone" / "README.md").read_text() == "mine"
    assert sorted(item.name for item in (tmp_path / "clone").iterdir()) == [
        ".git", "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_a_disk_that_is_full_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaleseg.save_pretrained(small_model(), tmp_path / "mine")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"mine cannot be written \(No space"):
        scaleseg.save_pretrained(small_model(seed=2), tmp_path / "mine")
    assert same(load(tmp_path / "mine"), small_model())
    assert sorted(files_of(tmp_path / "mine")) == ["README.md", "config.json", "model.safetensors"]


def test_a_file_in_the_way_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UserError, match="mine cannot be written"):
        scaleseg.save_pretrained(small_model(), tmp_path / "mine")


def by_hand() -> ScaleAware:
    model = small_model()
    return ScaleAware(model.segmenter, model.fusion, model.scales, model.classes)


def with_another_head() -> ScaleAware:
    model = small_model()
    model.segmenter.head = torch.nn.Conv2d(8, 7, 1)
    return model


def with_nan() -> ScaleAware:
    model = small_model()
    model.segmenter.head.bias.data[0] = float("nan")
    return model


def with_a_class_twice() -> ScaleAware:
    return create_model("small", classes=("a", "a"), pretrained="none", attention_width=8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (by_hand, "was not built by create_model"),
        (with_another_head, r"segmenter\.head\.bias, segmenter\.head\.weight differ"),
        (with_nan, r"NaN or infinity in segmenter\.head\.bias"),
        (with_a_class_twice, "give each name once"),
    ],
)
def test_a_model_that_nobody_could_load_is_not_saved(make: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        scaleseg.save_pretrained(make(), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


# the card


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def front_matter(text: str) -> dict[str, object]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_begins_with_what_the_hub_reads(tmp_path: Path) -> None:
    folder = scaleseg.save_pretrained(small_model(), tmp_path / "a", license="apache-2.0", base_model="org/cats")
    assert front_matter(card(folder)) == {
        "library_name": "scaleseg", "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "multi-scale", "attention-to-scale"],
        "license": "apache-2.0", "base_model": "org/cats",
    }  # fmt: skip


def test_a_licence_that_is_not_given_is_not_named(tmp_path: Path) -> None:
    text = card(scaleseg.save_pretrained(small_model(), tmp_path / "a"))
    assert "license" not in front_matter(text)
    assert "base_model" not in front_matter(text)


def test_a_licence_cannot_write_other_lines(tmp_path: Path) -> None:
    hostile = 'mit\npipeline_tag: text-generation\n---\n"'
    text = card(scaleseg.save_pretrained(small_model(), tmp_path / "a", license=hostile))
    matter = yaml.safe_load(text.removeprefix("---\n").partition("\n---\n\n#")[0])
    assert (matter["license"], matter["pipeline_tag"]) == (hostile, "image-segmentation")


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    text = card(scaleseg.save_pretrained(small_model(), tmp_path / "a"))
    count = sum(parameter.numel() for parameter in small_model().parameters())
    for part in ("small at 2 scales: 3 classes", "| scales | 1, 0.5 |", "attention", f"{count:,}", "1. disc\n2. bar"):
        assert part in text


def test_the_card_has_the_figures_that_are_recorded(tmp_path: Path) -> None:
    save(tmp_path / "run", small_model(), small_config(), about={"step": 7, "dev": {"mIoU": 0.123456789}})
    text = card(scaleseg.save_pretrained(tmp_path / "run", tmp_path / "a"))
    assert "| step | 7 |\n| dev.mIoU | 0.123457 |" in text


def test_a_model_without_figures_claims_none(tmp_path: Path) -> None:
    text = card(scaleseg.save_pretrained(small_model(), tmp_path / "a"))
    assert "None are recorded with this model." in text
    assert "IoU" not in text


def test_figures_do_not_outlive_a_change_of_the_model(tmp_path: Path) -> None:
    """A model in memory may have been trained on: what its checkpoint once scored says nothing of it."""
    save(tmp_path / "run", small_model(), small_config(), about={"mIoU": 0.9})
    assert "0.9" not in card(scaleseg.save_pretrained(load(tmp_path / "run"), tmp_path / "a"))


@pytest.mark.parametrize(
    "name", ["<script>x</script>", "a|b", "*bold*", "[x](http://y)", "two\nlines", "# head", "{name}"]
)
def test_a_class_is_plain_text_in_the_card(name: str, tmp_path: Path) -> None:
    model = create_model("small", classes=("ground", name), pretrained="none", attention_width=8)
    line = card(scaleseg.save_pretrained(model, tmp_path / "a")).split("0. ground\n")[1].split("\n")[0]
    assert re.sub(r"\\(.)", r"\1", line) == f"1. {' '.join(name.split())}"
    assert re.search(r"(?<!\\)[<|*\[#{]", line) is None


def python_of(text: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def test_the_lines_of_a_saved_card_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scaleseg.save_pretrained(small_model(), tmp_path / "a")
    monkeypatch.chdir(folder)
    Image.fromarray(draw_pair(0)[0]).save("photo.jpg")
    exec(python_of(card(folder)), names := {})
    assert Path("overlay.png").is_file()
    assert names["model"].classes == ("ground", "thing")


# pushing


def test_what_is_pushed_comes_back_bit_for_bit(hub: Hub) -> None:
    scaleseg.push_to_hub(small_model(), "me/mine", token=TOKEN)
    assert same(load("me/mine"), small_model())


def test_a_push_is_one_commit_with_all_the_files(hub: Hub) -> None:
    url = scaleseg.push_to_hub(small_model(), "me/mine", commit_message="Here it is", token=TOKEN)
    repository = hub.repositories["me/mine"]
    assert repository.messages == ["first", "Here it is"]
    assert set(repository.commits[url.rpartition("/")[2]]) == {
        ".gitattributes", "README.md", "config.json", "model.safetensors",
    }  # fmt: skip


def test_a_second_push_replaces_the_model_and_keeps_the_card(hub: Hub) -> None:
    scaleseg.push_to_hub(small_model(), "me/mine", token=TOKEN)
    hub.repositories["me/mine"].commit("main", {"README.md": b"edited there"})
    scaleseg.push_to_hub(small_model(seed=5), "me/mine", token=TOKEN)
    files = hub.repositories["me/mine"].commits[hub.repositories["me/mine"].branches["main"]]
    assert files["README.md"] == b"edited there"
    assert same(load("me/mine"), small_model(seed=5))


@pytest.mark.parametrize(("name", "revision"), [("me/mine", "try"), ("me/mine@try", None)])
def test_a_push_to_a_branch_leaves_main(name: str, revision: str | None, hub: Hub) -> None:
    scaleseg.push_to_hub(small_model(), "me/mine", token=TOKEN)
    for seed in (4, 5):  # the branch is new, then there
        scaleseg.push_to_hub(small_model(seed=seed), name, revision=revision, token=TOKEN)
    assert same(load("me/mine@try"), small_model(seed=5))
    assert same(load("me/mine"), small_model())


def test_a_checkpoint_is_pushed_without_its_paths(hub: Hub, tmp_path: Path) -> None:
    save(tmp_path / "run", small_model(), with_paths(), training_state={"step": 3})
    scaleseg.push_to_hub(str(tmp_path / "run"), "me/mine", token=TOKEN)
    files = hub.repositories["me/mine"].commits[hub.repositories["me/mine"].branches["main"]]
    assert "training_state.pt" not in files
    assert b"/home/me" not in b"".join(files.values())


def test_private_is_private(hub: Hub) -> None:
    scaleseg.push_to_hub(small_model(), "me/mine", private=True, token=TOKEN)
    assert hub.repositories["me/mine"].private
    assert same(scaleseg.from_pretrained("me/mine", token=TOKEN), small_model())


def test_private_into_a_public_repository_is_refused_before_anything_is_sent(hub: Hub) -> None:
    hub.repositories["me/mine"] = Repository({})
    with pytest.raises(UserError, match="private is True, but me/mine exists and is public"):
        scaleseg.push_to_hub(small_model(), "me/mine", private=True, token=TOKEN)
    assert (hub.large, hub.repositories["me/mine"].messages) == ({}, ["first"])


def test_the_lines_of_a_pushed_card_run(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaleseg.push_to_hub(small_model(), "me/mine", token=TOKEN)
    text = hub.repositories["me/mine"].commits[hub.repositories["me/mine"].branches["main"]]["README.md"].decode()
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_pair(0)[0]).save("photo.jpg")
    exec(python_of(text), {})
    assert Path("overlay.png").is_file()
    assert 'load("me/mine")' in text


def refusal(**options: object) -> str:
    with pytest.raises(UserError) as caught:
        scaleseg.push_to_hub(small_model(), **{"repo_id": "me/mine", "token": TOKEN, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("token", [None, "hf_a_wrong_one", False])
def test_a_push_without_a_login_says_how_to_log_in(token: str | None, hub: Hub) -> None:
    line = refusal(token=token)
    assert "answers 401: log in with a token that may write there (hf auth login, or set HF_TOKEN)" in line
    assert "hf_a_wrong_one" not in line


def test_a_push_where_one_may_not_write_says_so(hub: Hub) -> None:
    hub.read_only = True
    assert "me/mine" in refusal()
    assert "answers 403: log in with a token that may write there" in refusal()


def test_a_card_that_the_hub_refuses_is_told_in_its_own_words(hub: Hub) -> None:
    line = refusal(license="none of yours")
    assert f'{hub.address} refuses this: Invalid metadata in README.md. - "license" must be one of [mit, ...]' in line


def test_a_push_to_a_revision_that_cannot_be_names_it(hub: Hub) -> None:
    assert "me/mine has no revision 'refs/pr/7'" in refusal(revision="refs/pr/7")


def test_an_upload_that_is_refused_says_why(hub: Hub) -> None:
    hub.storage_full = True
    assert f"{hub.address} answers 403: log in with a token that may write there" in refusal()


def test_a_push_to_a_hub_out_of_reach_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(monkeypatch)
    assert "cannot be reached" in refusal()


def test_a_push_offline_names_the_variable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_sessions()
    assert "HF_HUB_OFFLINE is set" in refusal()


@pytest.mark.parametrize("name", ["mine", "me/mine/too", "./mine", ""])
def test_a_push_needs_an_account_and_a_name(name: str, hub: Hub) -> None:
    assert "such as org/name" in refusal(repo_id=name)
    assert not hub.reached()
