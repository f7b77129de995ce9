"""Know your customer, inside the owner's walls: identity documents, identifiers, screening against lists.

Guarantees: nothing here opens a connection; what is checked, and against what, stays on this machine.
"""
