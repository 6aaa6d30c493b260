"""The work on Ray: data, training, evaluation, generation and the registry around the model of `objgan`."""
