"""The serverless side: Lambda functions behind an API Gateway WebSocket API, with DynamoDB and SQS.

```
handler.py        what AWS calls: $connect, $disconnect, messages, sweeps, commands      authorizer.py  token -> allow or deny
shell.py          load, decide, save unless changed meanwhile, perform the effects       sweep.py       silence, one message a shard
ports.py          what the shell needs: Store, Subscriptions, Connections, Queue
store.py          records, exam, journal, inboxes in DynamoDB                            subscriptions.py  who is here, who watches
gateway.py        @connections                                                           queue.py       SQS
aws_http.py       the signed HTTP client under all four, with its meter                  resources.py   tables and queues
http.py           the web pages' WSGI application on Lambda                              config.py      settings from environment
local/            all of it on one machine, behind an emulated API Gateway
```
"""
