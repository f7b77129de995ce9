"""The OCR model server: documents in, text with confidences out. See `server` for what it speaks."""
