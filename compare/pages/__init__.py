"""Everything for readers, as self-contained pages. Nothing is worked out here.

```
report.py  details.py           what a run came to: the answer, and its table for a terminal; what engineers want to see
faults.py                       what the faults came to
outlook.py                      what a month costs, and where each deployment wins
day.py                          a simulated day
paper.py                        the published study

parts.py  style.css             what every page is made of
svg.py  markup.py               plots; HTML that can't forget to escape
```
"""
