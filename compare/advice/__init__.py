"""What to do: figures of the model, put to a school's questions.

```
choice.py       which deployment costs less for a month of exams, by how much, and what would flip that
plan.py         a day of exams on both, second by second
quotas.py       AWS's limits in the way, and what to ask for
paper.py        the published study beside this project
```
"""
