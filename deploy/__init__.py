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
rehearse.py     the serverless stack on an emulated AWS, with a student and a proctor talking through it
cli.py          the `deploy` command
```
Each stage is a shared stack and one or two of the others, named `proctorwire-STAGE-shared`, `-lambda` and `-ec2`.
"""
