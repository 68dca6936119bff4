"""The serverless side as the bridge uses it: the functions' own objects, in threads, because their calls wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from adapters.lambda_apigw import config
from adapters.lambda_apigw.aws_http import Credentials
from adapters.lambda_apigw.handler import Application

_T = TypeVar("_T")
_CALL_SECONDS = 20.0


Renewed = Callable[[], Credentials]
"""The credentials of now: an instance's role has new ones every few hours."""


def of_settings(settings: config.Settings) -> Renewed:
    """Those that never change."""
    return lambda: settings.credentials


def of_instance() -> Renewed | None:
    """Those of the instance's role, or of a profile, as boto3 finds and renews them; None if there are none."""
    import boto3

    found = boto3.Session().get_credentials()
    if found is None:
        return None

    def renewed() -> Credentials:
        frozen = found.get_frozen_credentials()
        return Credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token or "")

    return renewed


class Serverless:
    """The functions' objects, used by one thread: what is run here goes one after the other."""

    def __init__(self, settings: config.Settings, name: str, renewed: Renewed | None = None) -> None:
        self.app = Application(settings, name)
        self._renewed = renewed or of_settings(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[Application], _T]) -> _T:
        """Do this there, as one invocation."""

        def invocation() -> _T:
            self.app.session.begin(_CALL_SECONDS)
            self.app.session.credentials = self._renewed()
            return work(self.app)

        return await asyncio.get_running_loop().run_in_executor(self._thread, invocation)


class Several:
    """Some of them, for work on different participants, of which none waits for another."""

    def __init__(self, settings: config.Settings, name: str, size: int, renewed: Renewed | None = None) -> None:
        self._idle: asyncio.Queue[Serverless] = asyncio.Queue()
        for number in range(size):
            self._idle.put_nowait(Serverless(settings, f"{name}{number}", renewed))

    async def run(self, work: Callable[[Application], _T]) -> _T:
        """Do this in the one that is free next."""
        one = await self._idle.get()
        try:
            return await one.run(work)
        finally:
            self._idle.put_nowait(one)


async def all_of(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """All of this, at the same time. Raises the first error, and only when nothing of it is going on any more."""
    results = await asyncio.gather(*work, return_exceptions=True)
    done: list[_T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
