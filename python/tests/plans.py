"""Plans that prune short texts."""

SMALL = {
    "mode": "stages",
    "sinks": 64,
    "window": 128,
    "k": 64,
    "stages": [{"chunk": 32, "query_stride": 4}, {"chunk": 8, "keep": 96}],
    "refresh": [1, 1],
    "tail": 8,
    "first": None,
}
MEANS = {  # means of 8 keys, then every key of what they leave
    **SMALL,
    "stages": [{"chunk": 32, "query_stride": 16, "piece": 8}, {"chunk": 8, "keep": 96, "query_stride": 4, "piece": 1}],
}
STREAMING = {"mode": "streaming", "sinks": 64, "window": 128, "refresh": [1]}
