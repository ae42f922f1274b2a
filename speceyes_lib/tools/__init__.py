"""What agents use: tools by declaration, calls of the zoom, and programs in a sandbox."""
