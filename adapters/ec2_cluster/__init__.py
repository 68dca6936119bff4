"""The cluster: WebSocket worker processes on EC2 over Redis."""
