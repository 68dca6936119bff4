"""The figures of one part by itself, beside something to hold them against.

```
suite.py                `proctorwire bench`: what is measured in which order, and what is expected
cluster.py              ... throughput, delivery, memory and reconnects of the cluster on one core
serverless.py           `proctorwire bench-lambda`: the units of each kind of frame, and of a student's hour
bus.py  buses.py        `compare bus`: the cluster's publications over Redis, NATS and Kafka; one class each
```
"""
