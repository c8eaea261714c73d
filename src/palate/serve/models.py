"""The loaded bundles: which of them answers, which one answered before, and what of it is there again after a restart.

The store keeps the bundles that were loaded over HTTP and the one that answers. A server that is started with the same
bundles as before goes on with these; one that is started with other bundles lets its first one answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select

from palate.errors import PalateError
from palate.serve import tables
from palate.serve.answers import Answers
from palate.serve.deployment import Deployment
from palate.serve.items import Items
from palate.serve.problems import Problem
from palate.serve.settings import Settings
from palate.serve.store import Store

ROW = "model"  # of the table of values
logger = logging.getLogger(__name__)


class Models:
    """The bundles of one process by version.

    Args:
        settings: the settings.
        store: keeps what was loaded and activated.
        store_name: of the log whose events a refitted bundle was trained on.
        given: the bundles of the start; the first one answers.
        answers: of the server; ``loaded`` becomes the bundles.
    """

    def __init__(
        self, settings: Settings, store: Store, store_name: str, given: list[Deployment], answers: Answers
    ) -> None:
        self.settings, self.store, self.store_name, self.answers = settings, store, store_name, answers
        self.loaded = {one.version: one for one in given}
        self.given = list(self.loaded)
        self.before: list[str] = []  # versions that answered before the one that answers now
        self._first = given[0].path
        answers.loaded = self.loaded

    async def load(self, name: str) -> Deployment:
        """Load a bundle of the folder of models, checked and warm; the old one goes on answering meanwhile.

        Raises:
            Problem: the name leaves the folder.
            BundleError: the bundle is missing, damaged, or not signed by a trusted key.
        """
        known = set(self.loaded)
        made = self._add(await asyncio.to_thread(self._open, name))
        if made.version not in known:
            await self._keep()
        return made

    def version(self, name: str) -> str:
        """The version of a loaded bundle, by itself or by the name of the folder.

        Raises:
            Problem: no loaded bundle, or more than one, has the name.
        """
        found = [one.version for one in self.loaded.values() if name in (one.version, one.path.name)]
        if len(found) != 1:
            few = "no loaded model is" if not found else f"{len(found)} loaded models are"
            raise Problem(404, f"{few} named {name[:100]!r}: load it first, or give its version, see GET /v1/models")
        return found[0]

    async def switch(self, version: str) -> Deployment:
        """Activate a loaded bundle and remember the one before.

        Raises:
            Problem: no loaded bundle has this version.
        """
        deployment = self.loaded[self.version(version)]
        if deployment is not self.answers.deployment:
            self.before.append(self.answers.deployment.version)
            self.activate(deployment)
            await self._keep()
        return deployment

    async def roll_back(self) -> Deployment:
        """Activate the bundle that answered before.

        Raises:
            Problem: there is none.
        """
        if not self.before:
            raise Problem(409, "no other model has answered before: activate one by its version")
        deployment = self.loaded[self.before.pop()]
        self.activate(deployment)
        await self._keep()
        return deployment

    async def unload(self, version: str) -> None:
        """Forget a bundle that does not answer.

        Raises:
            Problem: it is unknown, or it answers.
        """
        if version not in self.loaded:
            raise Problem(404, f"no loaded model {version[:100]!r}: see GET /v1/models")
        if self.loaded[version] is self.answers.deployment:
            raise Problem(409, f"{version} answers: activate another one first")
        if self.answers.experiments.uses(version):
            raise Problem(409, f"{version} is an arm of the running experiment: stop it first")
        del self.loaded[version]
        self.before = [one for one in self.before if one != version]
        await self._keep()

    def activate(self, deployment: Deployment) -> None:
        """Let another loaded bundle answer; requests in progress end with the one that they began with."""
        answers = self.answers
        fresh = Items(deployment, answers.items.changes.values())
        answers.live.adopt(deployment)
        answers.deployment, answers.items = deployment, fresh

    def restore(self) -> None:
        """Load and activate what was loaded and active when the server ended, if it was started as it is now."""
        query = select(tables.values.c.content).where(tables.values.c.name == ROW)
        text = self.store.read_now(lambda connection: connection.execute(query).scalar())
        kept: dict[str, Any] = orjson.loads(text) if text else {}
        if kept.get("given") != self.given:
            if kept:
                logger.warning("other bundles are given than at the last start: %s answers", self.given[0])
            return
        for version, name in kept["loaded"].items():
            try:
                if version not in self.loaded and self._add(self._open(name)).version != version:
                    logger.warning("%s has another bundle than %s by now: it is loaded in its place", name, version)
            except (PalateError, Problem) as error:
                logger.warning("%s, which was loaded at the last start, is not: %s", version, error)
        self.before = [version for version in kept["before"] if version in self.loaded]
        if kept["active"] in self.loaded:
            self.activate(self.loaded[kept["active"]])
        else:
            logger.warning("%s, which answered at the last start, is not there: %s does", kept["active"], self.given[0])

    def _open(self, name: str) -> Deployment:
        folder = self.settings.models or self._first.resolve().parent
        path = (folder / name).resolve()
        if path.parent != folder.resolve():
            raise Problem(422, f"model={name[:60]!r} is not directly inside the folder of models: give its plain name")
        return Deployment.load(path, self.settings.trusted_key)

    def _add(self, made: Deployment) -> Deployment:
        known = self.loaded.get(made.version)
        if known is not None:
            return known
        made.join(self.store_name)
        self.loaded[made.version] = made
        return made

    async def _keep(self) -> None:
        kept = {
            "given": self.given,
            "loaded": {one.version: one.path.name for one in self.loaded.values() if one.version not in self.given},
            "active": self.answers.deployment.version,
            "before": self.before,
        }
        content = {"name": ROW, "content": orjson.dumps(kept).decode()}

        def change(connection: Connection) -> None:
            connection.execute(delete(tables.values).where(tables.values.c.name == ROW))
            connection.execute(tables.values.insert(), content)

        await self.store.write(change)
