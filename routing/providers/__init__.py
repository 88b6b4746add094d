"""Interchangeable providers behind one contract, `base.Provider`."""
