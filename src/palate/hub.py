"""Bundles on the Hugging Face hub: a model card from the manifest, upload, download.

The client is huggingface_hub (``pip install 'palate[hub]'``) with its own settings: HF_TOKEN or ``hf auth login``,
HF_ENDPOINT for another server, HF_HOME for the cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from palate.errors import BundleError

# The files of a bundle; a new version removes those of the one before.
PATTERNS = (
    "manifest.json", "signature.json", "weights-*.safetensors", "users-*.parquet", "items-*.parquet", "seen-*.parquet",
    "index-*.faiss",
)  # fmt: skip


def push(
    folder: Path, manifest: Mapping[str, Any], repo: str, *, private: bool, revision: str | None, token: str | None
) -> str:
    """Upload a saved bundle in one commit; see ``Bundle.push_to_hub``."""
    with _client(token) as api:
        made = api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        (folder / "README.md").write_text(model_card(manifest, made.repo_id), encoding="utf-8")
        if revision is not None:
            api.create_branch(made.repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=f"{manifest['recipe']['name']} of palate {manifest['versions']['palate']}",
            allow_patterns=[*PATTERNS, "README.md"],
            delete_patterns=list(PATTERNS),
        )
    return str(commit.commit_url)


def pull(repo: str, *, revision: str | None, token: str | None) -> Path:
    """Download the files of a bundle into the cache of the hub, and return their folder."""
    with _client(token) as api:
        return Path(api.snapshot_download(repo, revision=revision, allow_patterns=list(PATTERNS)))


@contextmanager
def _client(token: str | None) -> Iterator[Any]:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    except ModuleNotFoundError as error:
        raise BundleError("the Hugging Face hub needs an extra: pip install 'palate[hub]'") from error
    api, shown = HfApi(token=token, library_name="palate"), not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield api
    except HFValidationError as error:
        raise BundleError(f"{_first_line(error)}: name the repository OWNER/NAME") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        # A folder that cannot be written is an OSError, too, and its message says so.
        raise BundleError(
            f"the hub {api.endpoint} refused or did not answer ({_first_line(error)}): check the name of the "
            "repository, the network, and the token (hf auth login, or HF_TOKEN)"
        ) from None
    finally:
        if shown:
            enable_progress_bars()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:")


def model_card(manifest: Mapping[str, Any], repo: str) -> str:
    """The README of a bundle's repository: recipe, data, evaluation with its protocol, and how to load it.

    Args:
        manifest: of ``Bundle.info``.
        repo: "owner/name".
    """
    recipe, sizes, trained = manifest["recipe"], manifest["sizes"], manifest["trained_on"]
    rows = "" if trained is None else f", {trained['rows']:,} training rows (fingerprint `{trained['digest'][:16]}`)"
    prints = [f"{name} `{manifest[name]}`" for name in ("split", "candidates") if manifest[name]]
    features = ", ".join(
        f"`{name}` ({side})"
        for side in ("users", "items")
        for name in ((sizes.get("features") or {}).get(side) or {})
    )  # fmt: skip
    parts = [
        "---\nlibrary_name: palate\ntags:\n- recommender-system\n- collaborative-filtering\n"
        f"- {recipe['name']}\n---",
        f"# {_plain(recipe['name'])} on {_plain(manifest['data'])}",
        f"A recommender made with Palate {manifest['versions']['palate']} on {manifest['created'][:10]}: recipe "
        f"`{recipe['name']}`, trained on {_plain(manifest['data'])}.",
        "## Load",
        f'```python\nimport palate\n\nbundle = palate.Bundle.from_hub("{repo}")\n'
        'print(bundle.recommender.recommend(["USER_ID"], k=10))\n```',
        "`pip install 'palate[hub]'`. The repository is a bundle: JSON, safetensors and Parquet, without pickle; every "
        "file is checked against its SHA-256.",
        "## Data",
        f"{_plain(manifest['data'])}: {sizes['users']:,} users, {sizes['items']:,} items{rows}."
        + (f" Features: {features}." if features else ""),
        "The bundle holds the ids of users and items and the training rows of every user, which are the histories that "
        "lists are made from. Do not publish them without the right to.",
        "## Evaluation",
        *(_tables(manifest["metrics"]) or ["Not measured."]),
        *([f"Fingerprints: {', '.join(prints)}."] if prints else []),
        "## Settings",
        "| field | value |\n|---|---|\n"
        + "\n".join(f"| `{name}` | `{value}` |" for name, value in recipe["fields"].items()),
        "Versions: " + ", ".join(f"{name} {number}" for name, number in manifest["versions"].items()) + ".",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _tables(metrics: list[dict[str, Any]]) -> list[str]:
    """A table for each set of candidates, under the protocol that its figures depend on."""
    facts = ("candidates", "ties", "users", "rows", "protocol")

    def condition(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in facts)

    parts = []
    for (candidates, ties, users, rows, protocol), group in groupby(metrics, key=condition):
        found = [row for row in group if isinstance(row.get("value"), int | float)]
        if not found:
            continue
        counted = [f"{number:,} {unit}" for number, unit in ((users, "users"), (rows, "rows")) if number is not None]
        unit = "users" if rows is None else "rows"
        lines = [f"| metric | value | 95 % interval over {unit} |", "|---|---:|---|"]
        for row in found:
            name = f"{row.get('metric')}@{row['k']}" if row.get("k") else str(row.get("metric"))
            ends = [row.get("low"), row.get("high")]
            known = all(isinstance(end, int | float) for end in ends)
            lines.append(f"| {name} | {row['value']:.4f} | {f'{ends[0]:.4f} to {ends[1]:.4f}' if known else ''} |")
        about = [f"Candidates: {candidates}" if candidates else "Predicted ratings", ties, *counted]
        parts += [f"{'; '.join(filter(None, about))}. Held out: {_plain(protocol)}.", "\n".join(lines)]
    return parts


def _plain(text: object) -> str:
    """Names come from the data: Markdown is to show them as they are."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
