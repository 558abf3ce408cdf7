"""The parts, one folder each, with the part's spec, alert rules, dashboard, and code that only this part needs."""
