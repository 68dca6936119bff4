import asyncio
import ssl

import certificates
import pytest
from transport_peers import TEXT, Peer, Recorder, until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return certificates.for_localhost(tmp_path_factory.mktemp("tls"))


async def test_sockets_over_tls(serve, certificate):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.chain, certificate.key)
    served = await serve(Recorder(), tls=server, message_bytes=32 * 1024)
    client = ssl.create_default_context(cafile=str(certificate.authority))
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client, server_hostname="localhost")
    peer = Peer(reader, writer)
    assert (await peer.request("/ws", Connection="keep-alive, Upgrade"))[0] == 101
    assert served.endpoint.handshakes[0].secure
    for size in (1, 125, 9000, 20_000):
        peer.text(b"x" * size)
        assert await peer.next() == (TEXT, b"x" * size)
    served.endpoint.connections[0].close(4200, "drain")
    assert await peer.closed() == (4200, "drain")

    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=client, server_hostname="localhost")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.read()).endswith(b"\r\n\r\nok\n")
    writer.close()


async def test_handshakes_of_tls_that_fail_are_counted_and_others_are_not(serve, certificate):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.chain, certificate.key)
    served = await serve(Recorder(), tls=server, handshake_seconds=2.0)
    good = ssl.create_default_context(cafile=str(certificate.authority))
    _, stays = await asyncio.open_connection("127.0.0.1", served.port, ssl=good, server_hostname="localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", served.port, ssl=ssl.create_default_context())
    _, silent = await asyncio.open_connection("127.0.0.1", served.port)
    await until(lambda: served.listener.counters["refused_tls"] == 2)
    # the first came before both, so its time was over before theirs; it sent no request, which has an answer of its own
    assert served.listener.counters["refused_408"] == 1
    stays.close()
    silent.close()
