"""Know your customer, inside the owner's walls: identity documents, identifiers and screening against official lists.

Guarantees: nothing here opens a connection; what is checked and what it is checked against stay on this machine.
"""
