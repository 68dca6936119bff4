"""One exam through either deployment: who does what, what everybody saw, what it came to.

`comparison` is the whole story; the others are in the order of it.

```
comparison.py                   one deployment after the other, and the `Result`
workload.py  trace.py           the exam: drawn from a seed, or recorded
target.py  meter.py             a deployment, here or elsewhere; its processor time and memory
clients.py  crowd.py            pages and dashboards, and the hand that plays the schedule
recording.py                    what they did and saw
truth.py  measure.py            what should have been seen, and what was: latency, losses, false alarms
result.py                       what is written down
difference.py                   what is more than noise between results
```
"""
