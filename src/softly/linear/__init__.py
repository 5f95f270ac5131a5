"""How `linear_losses` goes about it: the layer, how it is cut, and a pass over its rows."""
