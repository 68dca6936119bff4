"""Faults on purpose: what breaks, who notices, how long it takes. Nothing here is simulated: processes die, networks fall silent.

```
trials.py               `compare faults`: the same fault through both deployments, side by side
chaos.py                `proctorwire chaos`: the cluster against its invariants, one scenario after the other
chaos_report.py         how each went
injection.py            a network that can fall silent, a wrong clock
```
"""
