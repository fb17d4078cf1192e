# SPDX-License-Identifier: Apache-2.0
"""The complete pre-training: self-supervision, geometry and captions in one run (`omnistream-train pretrain`)."""
