"""Building blocks shared by the generators that reuse pixels of real instances."""
