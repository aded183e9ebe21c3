"""The books of the stereo image, where there are two of them."""

import pytest
import torch
from tiny_codec import noise_audio, tiny_codec

from codec.image_book import ImageBook
from codec.spectral_codec import SpectralCodec


@pytest.fixture(scope="module")
def two_books() -> SpectralCodec:
    """Six books: the fourth and the last are the image's."""
    return tiny_codec(num_codebooks=6, stereo_bands=8, image_books=2, error_feedback=0.6)


def test_the_images_second_book_codes_what_the_first_leaves(two_books):
    assert two_books.image_places == (3, 5)
    audio = noise_audio(two_books, 1, two_books.hop_length * 60, seed=1)
    spectrogram = two_books.analyze(audio)
    codes = two_books.encode_spectrogram(spectrogram)
    scale = two_books.image_books[0].scale[:, None]
    errors = [
        ((two_books.decode_image(codes[:, :books]) - spectrogram[:, :, 16:]) / scale).abs().mean()
        for books in (3, 4, 5, 6)
    ]
    assert errors[1] < errors[0]
    assert errors[2] == errors[1]
    assert errors[3] < 0.95 * errors[1]
    levels = two_books.decode_spectrogram(codes)[:, :, :16]
    assert torch.equal(levels, two_books.decode_spectrogram(codes[:, :5])[:, :, :16])


def test_two_books_of_the_image_stream_as_the_whole_and_keep_mono(two_books):
    audio = noise_audio(two_books, 1, two_books.hop_length * 40)
    whole = two_books.encode(audio)
    pieces = two_books.encode_stream(audio.split(700, dim=-1), window=8)
    assert torch.equal(torch.cat(list(pieces), dim=-1), whole)
    mono = two_books.encode(audio[:, :1].repeat(1, 2, 1))
    assert (mono[:, [3, 5]] == 0).all()
    heard = two_books.decode(mono)
    assert torch.equal(heard[:, 0], heard[:, 1])


@pytest.mark.parametrize(("weight", "nearest"), [(0.5, 1), (2.0, 2)])
def test_angles_weigh_more_or_less_than_level_differences(weight: float, nearest: int):
    book = ImageBook(num_bands=1, codebook_size=3, angle_weight=weight)
    book.entries.copy_(torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 0.6]]))
    image = torch.tensor([[[6.0], [0.6]]])  # as far from the second entry as from the third
    assert book.encode(image, torch.zeros(1, 4, 1)).tolist() == [[nearest]]


def test_a_number_of_books_counts_both_of_the_images(two_books):
    counted = two_books.residual_books(torch.tensor([1, 3, 4, 5, 6]))
    assert counted.tolist() == [1, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_books": 3}, "image_books must be 1 or 2, got 3"),
        ({"image_books": 2, "num_codebooks": 4}, "num_codebooks must be at least 5 with two"),
    ],
)
def test_the_image_has_one_book_or_two(sizes: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        tiny_codec(stereo_bands=8, **sizes)
