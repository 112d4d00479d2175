"""What a user may ask for: one class per resource, thin methods over routes."""
