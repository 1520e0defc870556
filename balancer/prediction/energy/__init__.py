"""Parts of the prediction for watts: what requests take, who takes least. Pure."""
