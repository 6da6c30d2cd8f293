"""The record of deliveries: one protocol, one state machine, several stores."""
