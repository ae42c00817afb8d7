"""The bus inside a Flask app."""
