"""The Mistral dialect, translated to and from the OpenAI form that engines speak."""
