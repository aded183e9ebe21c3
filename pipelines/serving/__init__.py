"""Serve music over HTTP and WebSocket, a queue of jobs, and a page for the browser."""
