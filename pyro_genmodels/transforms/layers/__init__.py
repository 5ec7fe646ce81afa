"""Single invertible layers."""
