"""Parts of the prediction for fleets of hundreds of engines. Pure."""
