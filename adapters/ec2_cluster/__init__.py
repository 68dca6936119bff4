"""The cluster: WebSocket worker processes on EC2 over Redis.

```
supervisor.py   the parent of an instance: sockets, workers, journal, Redis if wanted   config.py     its settings
worker.py       one worker process: sockets in front, the shell behind                  access.py     keys, revocations
shell.py        which participants it owns, what is decided, what is saved when         hub.py        what its proctors are shown
owned.py  memory.py  frames.py     one of those; what Redis may lose; what is published beside views

listener.py  handshake.py     who comes in                connection.py  one open socket, its limits
transport_picows.py  transport_websockets.py              frames, by either library

broker.py  scripts/  keys.py  what is asked of Redis, each one atomic step; where it lies
redis_client.py  redis_cluster.py  redis_sync.py          the ways to Redis
clock.py                      Redis's time                embedded.py    a Redis of one's own

journal.py  ledger.py  ledger_sqlite.py  ledger_dynamodb.py             what must last
web.py  records.py            the HTTP API                admin.py  admin_server.py    for operators
metrics.py  logs.py           figures and lines           local.py       a whole cluster on this machine
```
"""
