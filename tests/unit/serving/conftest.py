"""Fixtures for tests of the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.catalogs import CatalogFactory


@pytest.fixture
def factory() -> Iterator[CatalogFactory]:
    with ThreadPoolExecutor(1) as storage, ThreadPoolExecutor(2) as opening:
        yield CatalogFactory(storage, opening)
