"""The two ways to deploy the core, each its own package; neither imports the other.

Beside them is what they have in common: `web`, `dynamodb_keys`.
"""
