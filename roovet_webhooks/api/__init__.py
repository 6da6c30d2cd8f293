"""The API of Roovet: a table that describes it, and a client made from that table."""
