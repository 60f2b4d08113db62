"""Datasets in the forms that other tools read, each with its receipts beside it."""
