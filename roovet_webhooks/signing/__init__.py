"""Bytes in, verdict out: keys, the header, the MAC, and what verifies and signs."""
