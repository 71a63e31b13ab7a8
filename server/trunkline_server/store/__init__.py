"""What operators keep by RPC: configs and routes, in SQLite or PostgreSQL."""
