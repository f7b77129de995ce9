"""The official lists, each in the format its publisher gives it, and FollowTheMoney for whoever licenses
other data.

Guarantees: a file is read to its end or refused whole, with the line and the reason; nothing that a file
says makes anything else be opened; memory is bounded by the bounds of `limits`, whatever the file holds.
"""
