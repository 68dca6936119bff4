"""Putting either deployment on AWS, and taking it away again.

```
shared/         template of what both share: tables, secrets, key, bucket, alarms' topic
lambda_apigw/   template of API Gateway, functions, queues
ec2_cluster/    template of load balancer, instances, cache; and what runs on an instance to begin and to drain it
templates.py    the templates as dictionaries, and as CloudFormation takes them
package.py      the Lambda zip and the wheelhouse, the same bytes from the same sources
stacks.py       change sets, their progress, outputs, deletion
settings.py     what a deployment is told, and which parameter of which template that becomes
cost.py         what a template's resources cost while nobody uses them
check.py        what is missing in an account, each with its fix
account.py      clients of an AWS account; credentials that are missing, in one line
operate.py      up, down and looking: the steps behind the command
rehearse.py     the stacks on an emulated AWS, with a student and a proctor talking through the serverless one
fleet.py        instances on this machine, behind a balancer: health checks, scale-out, drain
migrate.py      the steps of a move of a live exam; migrate_cli.py: its commands
bridge.py       the process that sees both sides during a move; bridge_sides.py: the serverless one
migration_rehearsal.py  a whole move on this machine, with faults
names.py  lock.py   what stacks are called; the wheels that go into the artifacts
cli.py          the `deploy` command
```
Each stage is a shared stack and one or two of the others, named `proctorwire-STAGE-shared`, `-lambda` and `-ec2`.
"""
