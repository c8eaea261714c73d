"""Loaded and activated bundles are there again after a restart."""

from __future__ import annotations

import asyncio
import logging
import shutil

import pytest

from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.models.item_knn import ItemKNN
from palate.models.popularity import Popularity
from palate.serve.deployment import Deployment
from palate.serve.service import Service
from palate.serve.settings import Settings


@pytest.fixture
def folder(bundle, shop, tmp_path):
    """Three bundles."""
    shutil.copytree(bundle, tmp_path / "shop")
    for name, recipe in (("plain", Popularity()), ("third", ItemKNN(neighbors=5))):
        Bundle.of(recipe, recipe.fit(shop, TrainOptions(threads=1)), shop).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def served(folder):
    """Run a conversation with a server that is started with a bundle: ``served("shop", coroutine of models)``."""

    def run(name: str, talk):
        async def inside():
            service = Service(Settings(store=f"sqlite:///{folder}/s.db"), [Deployment.load(folder / name)])
            await service.start()
            try:
                return await talk(service.models)
            finally:
                await service.stop()

        return asyncio.run(inside())

    return run


async def there(models) -> tuple[str, list[str], int]:
    """The folder of the model that answers, those of all, and how many answered before."""
    return models.answers.deployment.path.name, [one.path.name for one in models.loaded.values()], len(models.before)


def test_a_server_that_is_started_in_the_same_way_goes_on_with_its_models(served, folder, caplog):
    async def change(models):
        for name in ("plain", "third"):
            await models.load(name)
        await models.switch("third")
        return await models.switch("plain")

    served("shop", change)
    assert served("shop", there) == ("plain", ["shop", "plain", "third"], 2)

    async def back(models):
        await models.roll_back()
        await models.unload(models.version("plain"))

    served("shop", back)
    assert served("shop", there) == ("third", ["shop", "third"], 1)
    assert not caplog.records


def test_a_model_that_is_gone_keeps_nothing_from_starting(served, folder, caplog):
    async def change(models):
        await models.load("third")
        await models.load("plain")
        await models.switch("plain")

    served("shop", change)
    (weights,) = (folder / "plain").glob("weights-*")
    weights.write_bytes(weights.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert served("shop", there) == ("shop", ["shop", "third"], 1)
    assert "which was loaded at the last start, is not" in caplog.text
    assert "which answered at the last start, is not there" in caplog.text


def test_other_bundles_on_the_command_line_count(served, caplog):
    async def change(models):
        await models.load("plain")
        await models.switch("plain")

    served("shop", change)
    with caplog.at_level(logging.WARNING):
        assert served("third", there) == ("third", ["third"], 0)
    assert "other bundles are given than at the last start" in caplog.text
    caplog.clear()
    served("third", change)
    assert served("third", there) == ("plain", ["third", "plain"], 1)
