"""What a deployment costs on AWS: units times prices, with where each number comes from.

Start with `usage` (what is counted), then `cost` (what it comes to in a month).

```
usage.py                        the units that AWS would bill, as a run or the model leaves them
stretch.py                      from a run of seconds to an exam of hours
prices.py  prices_data.json     what a unit costs, where, and who says so
pricelist.py                    the same, read anew from AWS
lines.py                        what a bill is: lines, variants of a month, where two months meet
cost.py                         units times prices
free.py  credits.py             the free tier; CPU credits
standing.py                     what is there, exam or not
assumptions.py                  the guesses in it, and what speaks for each
alternatives.py                 the same exam on AppSync and IoT Core, as bills only
```
"""
