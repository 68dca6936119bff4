import asyncio
import contextlib

import pytest
import uvloop
from transport_peers import Black, Recorder, RedisServer, Served, listening_socket

from adapters.ec2_cluster.connection import ConnectionSettings
from adapters.ec2_cluster.listener import listen


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config, item):
    """Workers run on uvloop; asyncio's own loop is the way out if it fails us, so sockets are tested on both."""
    loops = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    if item.path.stem in ("test_transport_handshake", "test_transport_messages"):
        return loops
    return {"uvloop": loops["uvloop"]}


@pytest.fixture(params=["picows", "websockets"])
def transport(request):
    return request.param


@pytest.fixture
async def serve(transport):
    """Starts listeners: `await serve(endpoint=..., message_bytes=..., ...)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(endpoint=None, **settings):
            endpoint = endpoint or Recorder()
            sock = listening_socket()
            port = sock.getsockname()[1]
            settings = {"close_seconds": 0.2, "ping_seconds": 0.0, **settings}
            listener = await listen(sock, endpoint, ConnectionSettings(**settings), transport)
            served = Served(listener, endpoint, port)
            stack.push_async_callback(served.stop)
            return served

        yield start


@pytest.fixture
async def redis():
    """One redis-server for the test, restartable."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
async def black_box(redis):
    """A proxy before the test's redis-server that can go silent without closing anything."""
    proxy = Black(redis.path)
    await proxy.start()
    yield proxy
    await proxy.stop()
