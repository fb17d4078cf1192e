# SPDX-License-Identifier: Apache-2.0
"""From what a robot sees, is told and feels to a chunk of actions.

    from omnistream.policy import PolicySession, load_policy
    session = PolicySession(load_policy("policy/"), load_model("weights/"))      # or load_policy("default")
    session.set_instruction("open the drawer")
    for images in robot:                               # {camera: uint8 [H, W, 3]}
        chunk = session.step(images, state)            # ActionChunk, in the robot's own units

The names below are imported when they are first used; `transformers` only when a network is built.
"""

__all__ = ["ActionChunk", "LoadedPolicy", "PolicySession", "default_policy", "load_policy", "save_policy"]


def __getattr__(name: str) -> object:
    if name in ("LoadedPolicy", "load_policy", "save_policy"):
        from omnistream.policy import checkpoint

        return getattr(checkpoint, name)
    if name in ("ActionChunk", "PolicySession"):
        from omnistream.policy import session

        return getattr(session, name)
    if name == "default_policy":
        from omnistream.policy import default

        return default.default_policy
    raise AttributeError(f"module 'omnistream.policy' has no attribute {name!r}")
