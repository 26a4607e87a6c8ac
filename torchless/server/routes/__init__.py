"""One module for each group of paths, found by its name: it has ROUTES, and PUBLIC where paths need no key."""
