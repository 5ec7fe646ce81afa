"""The contract of a model: model and guide, plates, registration of parameters, losses."""
