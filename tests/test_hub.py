"""Bundles on a local fake of the Hugging Face hub's HTTP API: what is uploaded is what is loaded.

No public hub can be reached from tests, and there is none to install: the fake answers the routes that the client of
huggingface_hub calls, and keeps files by commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import palate
from boards import make_checkerboard
from palate.base import Query
from palate.errors import BundleError

pytest.importorskip("huggingface_hub", reason="pip install 'palate[hub]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


class Hub:
    """Repositories by name: branches, and the files of each commit."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.token = "hf_secret"

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get((repo, revision), revision)]

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{repo} {branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[repo, branch] = name
        return name

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, Any]:
        length = int(request.headers.get("Content-Length") or 0)
        body, path = request.rfile.read(length), request.path.partition("?")[0]
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = asked["name"] if not asked.get("organization") else f"{asked['organization']}/{asked['name']}"
            if repo in self.private:
                return 409, {"error": "exists", "url": f"{self.url}/{repo}"}
            self.private[repo] = asked["private"] if "private" in asked else asked.get("visibility") == "private"
            self.commit(repo, "main", {})
            return 200, {"url": f"{self.url}/{repo}", "name": repo}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if found := re.fullmatch(r"/api/models/([\w-]+/[\w-]+)(?:/([\w-]+)/([\w-]+))?", path):
            if found[1] not in self.private:
                return 404, {"error": "Repository not found"}
            return self.about(found[1], found[2] or "revision", found[3] or "main", body)
        if found := re.fullmatch(r"/([\w-]+/[\w-]+)/resolve/(\w+)/(.+)", path):
            return 200, (found[2], self.files(found[1], found[2])[found[3]])
        return 500, {"error": f"the fake hub has no {request.command} {path}"}

    def about(self, repo: str, action: str, revision: str, body: bytes) -> tuple[int, Any]:
        """Routes of one repository."""
        if action == "branch":
            self.branches[repo, revision] = self.branches[repo, "main"]
            return 200, {}
        if action == "preupload":
            names = [one["path"] for one in json.loads(body)["files"]]
            return 200, {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if action == "tree":
            files = self.files(repo, revision)
            return 200, [{"type": "file", "path": k, "size": len(v), "oid": digest(v)} for k, v in files.items()]
        if action == "commit":
            files = dict(self.files(repo, revision))
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            name = self.commit(repo, revision, files)
            return 200, {"success": True, "commitOid": name, "commitUrl": f"{self.url}/{repo}/commit/{name}"}
        name = self.branches.get((repo, revision), revision)
        if name not in self.commits:
            return 404, {"error": "Invalid rev id"}
        siblings = [{"rfilename": one} for one in self.commits[name]]
        return 200, {"id": repo, "modelId": repo, "sha": name, "siblings": siblings, "private": True}


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    outer = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            code, answer = outer.answer(self)
            self.send_response(code)
            if isinstance(answer, tuple):
                commit, content = answer
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{digest(content)}"')
            else:
                content = json.dumps(answer).encode()
                self.send_header("Content-Type", "application/json")
                if code == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_HEAD = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    outer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    # The client reads its settings when it is imported.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", outer.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", outer.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", outer.token)
    yield outer
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def bundle() -> palate.Bundle:
    split = make_checkerboard(16)
    split = split.with_candidates(palate.draw_candidates(split, 5))
    recipe = palate.IALS(dim=4, epochs=3)
    model = recipe.fit(split.train)
    reports = [palate.evaluate(model, split, k=5), palate.evaluate(model, split, k=5, candidates=split.candidates)]
    return palate.Bundle.of(
        recipe, model, split.train, [row for report in reports for row in report.rows()],
        split_fingerprint=split.fingerprint,
    )  # fmt: skip


def test_a_bundle_comes_back_from_the_hub_as_it_was(hub: Hub, bundle: palate.Bundle) -> None:
    address = bundle.push_to_hub("ann/taste")
    assert address == f"{hub.url}/ann/taste/commit/{hub.branches['ann/taste', 'main']}"
    assert hub.private == {"ann/taste": True}
    back = palate.Bundle.from_hub("ann/taste")
    assert back.recipe == bundle.recipe
    assert back.metrics == bundle.metrics
    query = Query.of([0, 3, 9])
    assert torch.equal(back.recommender.model.score(query), bundle.recommender.model.score(query))
    users = bundle.recommender.users.ids.to_list()
    assert back.recommender.recommend(users, k=3).equals(bundle.recommender.recommend(users, k=3))


def test_the_model_card_has_recipe_data_figures_with_their_conditions_and_how_to_load(
    hub: Hub, bundle: palate.Bundle
) -> None:
    bundle.push_to_hub("ann/taste", private=False)
    assert hub.private == {"ann/taste": False}
    card = hub.files("ann/taste")["README.md"].decode()
    assert card.startswith("---\nlibrary_name: palate\n")
    assert 'palate.Bundle.from_hub("ann/taste")' in card
    assert "16 users, 16 items, 112 training rows" in card
    assert "| `dim` | `4` |" in card
    for row in bundle.metrics:
        if row["low"] == row["low"] and row["low"] is not None:
            line = f"| {row['metric']}@5 | {row['value']:.4f} | {row['low']:.4f} to {row['high']:.4f} |"
            assert line in card
        assert row["candidates"] in card
        assert row["ties"] in card
    assert card.count("95 % interval over users") == 2  # full ranking and sampled candidates never share a table
    assert str(bundle.split) in card


def test_a_newer_bundle_replaces_the_files_and_an_older_one_stays_at_its_commit(
    hub: Hub, bundle: palate.Bundle
) -> None:
    bundle.push_to_hub("ann/taste")
    first = hub.branches["ann/taste", "main"]
    split = make_checkerboard(12)
    recipe = palate.Popularity()
    palate.Bundle.of(recipe, recipe.fit(split.train), split.train).push_to_hub("ann/taste")
    names = set(hub.files("ann/taste"))
    manifest = json.loads(hub.files("ann/taste")["manifest.json"])
    assert names == {"README.md", "manifest.json", *(one["name"] for one in manifest["files"].values())}
    assert palate.Bundle.from_hub("ann/taste").recipe == recipe
    assert palate.Bundle.from_hub("ann/taste", revision=first).recipe == bundle.recipe
    bundle.push_to_hub("ann/taste", revision="next")
    assert palate.Bundle.from_hub("ann/taste", revision="next").recipe == bundle.recipe
    assert palate.Bundle.from_hub("ann/taste").recipe == recipe


def test_a_changed_file_on_the_hub_is_refused(hub: Hub, bundle: palate.Bundle) -> None:
    bundle.push_to_hub("ann/taste")
    files = dict(hub.files("ann/taste"))
    name = next(one for one in files if one.startswith("items-"))
    hub.commit("ann/taste", "main", {**files, name: files[name][:-1] + b"x"})
    with pytest.raises(BundleError, match=name):
        palate.Bundle.from_hub("ann/taste")


@pytest.mark.parametrize(
    ("repo", "token", "words"),
    [
        ("ann/none", None, "check the name"),
        ("no such name", None, "OWNER/NAME"),
        ("ann/taste", "hf_wrong", "the token"),
    ],
)
def test_what_the_hub_refuses_ends_with_a_remedy(
    repo: str, token: str | None, words: str, hub: Hub, bundle: palate.Bundle
) -> None:
    bundle.push_to_hub("ann/taste")
    with pytest.raises(BundleError, match=words):
        palate.Bundle.from_hub(repo, token=token)
