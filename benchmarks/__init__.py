"""What the README claims, and how it was measured."""
