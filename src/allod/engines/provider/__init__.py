"""The way out to one remote provider: a process that listens on a Unix socket and knows one host and one
key.
"""
