"""What the method costs: time, memory and arithmetic, each beside the same tower without the method.

`rfclip cost` prints it; docs/COST.md says how it is measured.
"""
