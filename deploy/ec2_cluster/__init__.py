"""The EC2 deployment: the template, and what an instance runs."""
