"""An emulated API Gateway WebSocket API: the real Lambda handlers run behind it unchanged, on one machine.

```
settings.py     what is served and how strict           usage.py      what was used, in billable units
gateway.py      the WebSocket front: authorizer, $connect, routing, limits, $disconnect
events.py       the events Lambda gets, field by field  throttle.py   the account's token bucket
management.py   @connections over HTTP, with SigV4      sigv4.py      signatures, both ways
environments.py execution environments as processes     environment_main.py  what runs inside one
queues.py       SQS event source mapping, scheduled rules
ministack.py    DynamoDB and SQS on the wire, as a child process
service.py      LocalGateway, all of it as one object   __main__.py   the same as a process of its own
```
Nothing here knows what the handlers are for. What AWS documents is reproduced strictly, limits included; what it does
not document is said where it is decided.
"""
