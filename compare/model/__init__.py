"""An exam without a run: its units and its latency, from coefficients that runs were measured for.

Start with `units`; how its coefficients are made is in `observed`.

```
units.py                                from a school's words to billable units
latency.py                              hops on AWS, from published measurements
calibration.py  calibration.json        what a frame costs: the coefficients, and those of this package
observed.py                             ... and how they are got from runs
heldout.py                              how far they are off for other runs
speed.py                                one machine's speed against another's
```
"""
