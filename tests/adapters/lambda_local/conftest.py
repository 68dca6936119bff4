import contextlib

import pytest
from toy_gateway import Toy, function

from adapters.lambda_apigw.local.service import LocalGateway
from adapters.lambda_apigw.local.settings import GatewaySettings


@pytest.fixture
async def toy():
    """Starts gateways: `await toy(connect=..., limits=...)`. Without arguments: one `$default` route."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(functions=None, routes=None, **settings):
            gateway = LocalGateway(
                GatewaySettings(
                    functions=functions or {"message": function("message")},
                    routes=routes or {"$default": "message"},
                    **settings,
                )
            )
            return Toy(await stack.enter_async_context(gateway))

        yield start
