# SPDX-License-Identifier: Apache-2.0
"""OmniStream: a causal, streaming vision backbone with a persistent KV-cache, for robots.

    from omnistream import StreamSession, load_model
    session = StreamSession(load_model("weights/"))
    for image in camera:                        # uint8 [H, W, 3]
        result = session.step(image)            # depth, pose, features, ...

The names below are imported when they are first used.
"""

__version__ = "0.1.0"

__all__ = ["StreamSession", "load_backbone", "load_model"]


def __getattr__(name: str) -> object:
    # So that `import omnistream` and the command line tools' --help do not wait for torch.
    if name in ("load_backbone", "load_model"):
        from omnistream import weights

        return getattr(weights, name)
    if name == "StreamSession":
        from omnistream.stream.session import StreamSession

        return StreamSession
    raise AttributeError(f"module 'omnistream' has no attribute {name!r}")
