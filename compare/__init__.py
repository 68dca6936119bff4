"""Puts the same exam through both deployments, measures it and prices it; and the commands of the project.

```
cli.py  proctorwire.py  commands/      the `compare` and `proctorwire` commands
present.py                             how results leave a command: text, Markdown, CSV, JSON; progress

A run
scenario.py  workload.py  trace.py     which exam: from a file, drawn, or recorded
target.py  meter.py                    either deployment, here or elsewhere; processor time and memory
clients.py  crowd.py  recording.py     pages and dashboards, and what they saw
truth.py  measure.py                   what should have been seen, and what was
run.py  result.py  difference.py       all of it; what is written down; what is more than noise
trials.py                              the same faults through both

A bill
prices.py  pricelist.py                what AWS asks for a unit, and who says so
usage.py  stretch.py  model.py         the units of a run, of an exam like it, of an exam in a school's words
calibration.py  observed.py  speed.py  what a frame costs, from measured runs
heldout.py                             how far that is off for other runs
cost.py  bill.py  free.py  credits.py  units times prices: lines, months, free tier, CPU credits
standing.py  alternatives.py           what is there, exam or not; AppSync and IoT Core
assumptions.py  latency.py             the guesses in it; hops on AWS, modelled

Decisions
advise.py  outlook.py                  which deployment, and what would flip that
plan.py  dayplan.py  quotas.py         a day, second by second; AWS's limits in the way
paper.py                               the published study beside this project

Pages
report.py  paperpage.py  faultpage.py  what a run, the study, the faults came to
page.py  svg.py  markup.py             what pages are made of

Commands of `proctorwire` that measure or try out the deployments
bench.py  bench_run.py                 the cluster on one core
bench_lambda.py                        the units of each kind of frame
chaos.py  chaos_report.py  faults.py   faults on purpose, and a machine that judges
bus.py  buses.py                       other ways between workers
demo.py  lambda_local.py               something to look at
administration.py  records.py          an operator's hands
```
"""
