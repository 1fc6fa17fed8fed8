"""The pictures of the paper's Figures 3 to 7: what the model computed in, figures and PNG files out."""
