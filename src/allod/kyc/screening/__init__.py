"""Screening of names against official sanctions lists.

Guarantees: lists are taken in whole or not at all; the same name, list and version of the scheme give the
same score; every match says which parts it rests on and how much each of them counted.
"""
