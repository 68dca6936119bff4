"""The two ways to deploy the core, each its own package; neither imports the other."""
