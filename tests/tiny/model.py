"""What is in ``nemo-cosmos-tiny``."""

NETWORKS = (
    "Cosmos-Predict1-Tiny-Video2World",
    "Cosmos-Predict1-Tiny-Text2World",
    "Cosmos-Predict2-Tiny-Video2World",
    "Cosmos-Predict2-Tiny-Text2Image",
)
