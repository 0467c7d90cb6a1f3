"""Every exception of the driver has its meaning in one table."""

from __future__ import annotations

import inspect

import pytest
from redis import exceptions as driver

from features.redis_errors import BUG, ERRORS, meaning
from features.redis_store import RedisStore
from features.store import StoreMisconfigured, StoreUnavailable

DRIVER_EXCEPTIONS = [
    found
    for _, found in inspect.getmembers(driver, inspect.isclass)
    if issubclass(found, Exception) and found.__module__ == driver.__name__
]


@pytest.mark.parametrize("kind", DRIVER_EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_an_exception_of_the_driver_is_in_the_table(kind: type[Exception]) -> None:
    assert len(DRIVER_EXCEPTIONS) > 30
    assert ERRORS[kind.__name__] in (StoreUnavailable, StoreMisconfigured, BUG)


def test_an_exception_that_is_not_in_the_table_means_what_its_ancestor_means() -> None:
    class NewOutOfMemoryError(driver.OutOfMemoryError): ...

    class NewDataError(driver.DataError): ...

    found = meaning(NewOutOfMemoryError("no\nroom"), "host:1")
    assert isinstance(found, StoreUnavailable)
    assert str(found) == "Redis at host:1: no room"
    assert meaning(NewDataError("odd"), "host:1") is None


def test_a_server_without_functions_is_too_old() -> None:
    found = meaning(driver.ResponseError("unknown command `FUNCTION`, with args beginning with:"), "host:1")
    assert isinstance(found, StoreMisconfigured)
    assert "7.0" in str(found)


async def test_an_address_that_cannot_be_read_is_one_line() -> None:
    for url in ("kafka://host", "localhost:6379", "redis://host:port", "redis://me:s3c/ret@host:1"):
        with pytest.raises(StoreMisconfigured, match="address") as caught:
            RedisStore(url, "fraud")
        assert "s3c" not in str(caught.value)


async def test_a_server_that_is_not_there_is_unavailable_and_named() -> None:
    store = RedisStore("redis://:secret@127.0.0.1:1/0", "fraud")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1") as caught:
        await store.claim(0)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    await store.close()
