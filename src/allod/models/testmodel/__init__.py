"""A chat model small enough to be made while a test waits: honest weights for honest tests.

It is a Mistral-architecture decoder of well under a million parameters, trained from nothing on sentences
that `corpus` writes. It exists so that chat, streaming, tool calls and structured output run for real where
no open-weight model is at hand. It knows next to nothing, says so, and its manifest says so.
"""
