"""The serverless side: Lambda functions behind an API Gateway WebSocket API, with DynamoDB and SQS.

```
handler.py        what AWS calls: $connect, $disconnect, messages, sweeps, commands      authorizer.py  token -> allow or deny
shell.py          load, decide, save unless changed meanwhile, perform the effects       sweep.py       silence, one message a shard
ports.py          what the shell needs: Store, Subscriptions, Connections, Queue
flood.py          too many frames of one connection                                      claims.py       the authorizer's context
store.py          records, exam, journal, inboxes in DynamoDB                            subscriptions.py  who is here, who watches
gateway.py        @connections                                                           queue.py       SQS
aws_http.py       the signed HTTP client under all four, with its meter                  resources.py   tables and queues
usage.py          what was used, as metrics in the log                                   tokens.py       the keys of tokens
http.py           the web pages' WSGI application on Lambda                              config.py      settings from environment
history.py        timelines and conversations, for the HTTP API                          records.py      schools, rosters
moves.py          a move to or from the cluster, kept as data                            admin.py        an operator's revocations
rights.py         what each handler may do, declared beside it
local/            all of it on one machine, behind an emulated API Gateway
```
"""
