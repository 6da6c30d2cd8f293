"""The shop: its ledger, and what it does on an event."""
