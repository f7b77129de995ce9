"""The cold parts of the OpenAI dialect; the hot ones never leave the front."""
