"""Embeddings of labels."""

from __future__ import annotations

import torch

from denoise.nn.embeddings import TextEncoder


def test_the_embedding_of_a_text_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    encoder, texts = TextEncoder(8), ["rose", "a photo of many tulips", "two daisies", ""]
    together = encoder(texts)
    for text, embedding in zip(texts, together, strict=True):
        torch.testing.assert_close(encoder([text])[0], embedding)


def test_a_text_of_null_characters_is_an_empty_text() -> None:
    torch.manual_seed(0)
    blank, null = TextEncoder(8)(["", "\0\0"])
    assert torch.equal(null, blank)
    assert blank.isfinite().all()
