"""The LLM engine for CPUs: llama.cpp (the `xllamacpp` wheel) as a replica on a Unix socket."""
