"""Faults on purpose: what breaks, who notices, how long it takes. Nothing here is simulated: processes die, networks fall silent.

```
trials.py               `compare faults`: the same fault through both deployments, side by side
chaos.py                `proctorwire chaos`: the cluster against its invariants, one scenario after the other
scenarios.py            ... its faults, one function each
rig.py                  ... what they can reach, and what a scenario is
invariants.py           ... what must hold whatever breaks, judged
chaos_report.py         ... how each went
injection.py            a network that can fall silent, a wrong clock
processes.py            processes made to stand still, and waited for
```
"""
