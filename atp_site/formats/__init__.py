"""How dates are written for people, in place of Django's own formats: with their zone."""
