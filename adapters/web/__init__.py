"""The HTTP API: one WSGI app for both deployments.

```
app.py        routes: health, tokens, exams, participants
openapi.py    all of them as an OpenAPI document; answers.py: bodies of answers
access.py     whose key or token it is
administration.py  keys, rosters, assignments, retention
records/      schools, keys, exams, rosters: SQLAlchemy or DynamoDB
audit.py      who did what
pages.py      the dashboard, the demo exam, the student script (static/)
history.py    timelines, conversations, and both as CSV (csv_file.py)
requests.py   bodies and queries: what they must fit, and what is wrong with those that do not
roster_file.py  rosters as CSV
limits.py     how often a key may ask
problems.py   errors as application/problem+json
exams.py      opening and closing: decide, save unless changed meanwhile
ports.py      what the app needs of a deployment
settings.py   school keys, token keys, where the sockets are
```
"""
