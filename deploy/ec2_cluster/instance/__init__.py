"""What runs on an instance besides the server: its beginning (`install.sh`, `settings`), its web process, and its end (`drain`)."""
