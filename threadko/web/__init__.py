"""HTTP entrypoints on werkzeug and cheroot."""
