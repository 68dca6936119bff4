"""Puts the same exam through both deployments, measures it and prices it; and the commands of the project."""
