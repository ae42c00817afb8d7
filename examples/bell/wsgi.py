"""What a server imports: ``wsgi:app``."""

from bell import create_app

app = create_app()
