# SPDX-License-Identifier: Apache-2.0
"""Pictures, videos and texts from folders and WebDataset shards, as sources of pre-training.

store      samples: files that belong together by name, in a folder or in tar shards
sampling   which sample a clip number means; what happens when it cannot be read
pictures   single pictures for self-supervision
videos     clips from video files
texts      pictures with questions and answers: LLaVA-style JSON, captions beside pictures, GRIT's boxes
"""
