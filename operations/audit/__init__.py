"""Looks at what runs and what it is made of: facts, hardening, drift, licences, bills of materials."""
