"""Side-by-side measurements: each module here whose ``main()`` prints its table or returns it."""
