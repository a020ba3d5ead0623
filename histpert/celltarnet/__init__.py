"""CellTARNet: the distribution of whole cells given a control cell and a perturbation, as a normalizing flow."""
