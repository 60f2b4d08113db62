"""How the Gemini API speaks: generated content, embeddings, images, batches, what is kept."""
