"""The bus inside web frameworks."""
