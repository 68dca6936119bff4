"""Puts the same exam through both deployments, measures it and prices it; and the commands of the project.

Groups, lowest first: each may import those above it and none below. Each has a map of its own.

```
bill/       what a deployment costs: prices, units, a month of exams
run/        one exam through either deployment, what its clients saw, and what that came to
model/      an exam without a run: units and latency from what was measured once
faults/     faults on purpose, judged
bench/      the figures of one part: the cluster on one core, each kind of frame, other ways between workers
advice/     which deployment, a simulated day, AWS's limits, the published study
pages/      all of it for readers: self-contained pages, and what they are made of

scenario.py  scenarios/                which exam, its day and its month, under one name
present.py                             how results leave a command: text, Markdown, CSV, JSON; progress
output.py                              the folder that a run is written to
demo.py  lambda_local.py               something to look at
commands/  cli.py  proctorwire.py      the `compare` and `proctorwire` commands
```

To follow one `compare run`: `cli`, `run.comparison`, `run.measure`, `bill.cost`, `pages.report`.
"""
