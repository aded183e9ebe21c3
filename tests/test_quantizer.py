"""The residual quantizer against vector-quantize-pytorch, its formulas, and slow loops."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from vector_quantize_pytorch import ResidualVQ

from codec.quantizer import ResidualQuantizer

DIM, BOOKS, SIZE = 6, 3, 8


def vectors(count: int = 512, seed: int = 0) -> torch.Tensor:
    """(count, DIM) points around sixteen centers."""
    draws = torch.Generator().manual_seed(seed)
    centers = torch.randn(16, DIM, generator=torch.Generator().manual_seed(99)) * 3
    chosen = torch.randint(16, (count,), generator=draws)
    return centers[chosen] + torch.randn(count, DIM, generator=draws)


def quantizer(books: int = BOOKS) -> ResidualQuantizer:
    torch.manual_seed(0)
    result = ResidualQuantizer(DIM, books, SIZE).eval()
    result.initialize(vectors())
    return result


@pytest.fixture
def trained() -> ResidualQuantizer:
    return quantizer()


def library(own: ResidualQuantizer) -> ResidualVQ:
    """vector-quantize-pytorch with the same books, set up as ours are trained."""
    books = len(own.codebooks())
    result = ResidualVQ(
        dim=DIM, num_quantizers=books, codebook_size=SIZE, decay=0.99, kmeans_init=True,
        threshold_ema_dead_code=0, commitment_weight=1.0,
    )  # fmt: skip
    result.load_state_dict(own.vq.state_dict(), strict=False)
    return result.train(own.training)


@pytest.mark.parametrize("seed", range(6))
def test_one_call_initializes_every_book(seed):
    torch.manual_seed(seed)
    result = ResidualQuantizer(DIM, BOOKS, SIZE)
    assert not result.is_initialized
    result.initialize(vectors())
    assert result.is_initialized
    assert result.training
    assert all(len(book.unique(dim=0)) == SIZE for book in result.codebooks())


def test_equal_vectors_give_equal_books():
    books = []
    for seed in range(2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        result = ResidualQuantizer(DIM, BOOKS, SIZE)
        result.initialize(vectors())
        assert torch.equal(torch.get_rng_state(), state)
        books.append(torch.stack(result.codebooks()))
    assert torch.equal(books[0], books[1])


def test_initialization_refuses_fewer_vectors_than_entries():
    with pytest.raises(ValueError, match=r"at least codebook_size=8 vectors, got 7"):
        ResidualQuantizer(DIM, BOOKS, SIZE).initialize(vectors(7))


def test_initialization_leaves_the_mode_alone(trained):
    assert not trained.training


def test_encode_equals_the_library(trained):
    latents = vectors(60, seed=1).view(3, 20, DIM)
    _, codes, _ = library(trained)(latents)
    assert torch.equal(trained.encode(latents), codes.transpose(1, 2))


def test_encode_equals_a_plain_loop(trained):
    latents = vectors(10, seed=2)[None]
    codes = trained.encode(latents)
    for position, vector in enumerate(latents[0]):
        residual = vector
        for index, book in enumerate(trained.codebooks()):
            nearest = min(range(SIZE), key=lambda v: float((residual - book[v]).norm()))
            assert codes[0, index, position] == nearest
            residual = residual - book[nearest]


def test_decode_equals_the_library(trained):
    latents = vectors(60, seed=1).view(3, 20, DIM)
    codes = trained.encode(latents)
    decoded = trained.decode(codes)
    assert torch.allclose(decoded, library(trained).get_output_from_indices(codes.transpose(1, 2)))
    quantized, _ = trained(latents)
    assert torch.allclose(decoded, quantized, atol=1e-5)


def test_fewer_books_equal_the_library_and_are_a_prefix(trained):
    latents = vectors(200, seed=3)[None]
    codes = trained.encode(latents)
    entries = library(trained).get_codes_from_indices(codes.transpose(1, 2))  # (K, B, T, D)
    errors = []
    for books in range(1, BOOKS + 1):
        decoded = trained.decode(codes[:, :books])
        assert torch.allclose(decoded, entries[:books].sum(0), atol=1e-6)
        errors.append(float((decoded - latents).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_num_books_masks_rows(trained):
    codes = trained.encode(vectors(40, seed=4).view(2, 20, DIM))
    masked = trained.decode(codes, num_books=torch.tensor([1, 3]))
    assert torch.equal(masked[0], trained.decode(codes[:, :1])[0])
    assert torch.equal(masked[1], trained.decode(codes)[1])


def test_initialization_is_k_means(trained):
    """Sixteen centers of spread 3 in eight entries: far better than the mean alone."""
    latents = vectors()
    codes = trained.encode(latents[None])
    error = (trained.decode(codes[:, :1])[0] - latents).square().mean()
    assert error < 0.5 * latents.var(dim=0).mean()
    assert (trained.decode(codes)[0] - latents).square().mean() < 1.0  # the spread in a cluster


def test_commitment_is_the_mean_over_the_books(trained):
    latents = vectors(64, seed=5)[None]
    codes = trained.encode(latents)
    errors = [(trained.decode(codes[:, :k]) - latents).square().mean() for k in range(1, BOOKS + 1)]
    _, commitment = trained.train()(latents)
    assert torch.allclose(commitment, torch.stack(errors).mean(), rtol=1e-4)


def test_every_row_is_coded_by_its_own_number_of_books(trained):
    latents = vectors(60, seed=5).view(3, 20, DIM)
    codes = trained.encode(latents)
    quantized, _ = trained(latents, torch.tensor([1, 3, 2]))
    for row, books in enumerate((1, 3, 2)):
        expected = trained.decode(codes[row : row + 1, :books])[0]
        assert torch.allclose(quantized[row], expected, atol=1e-5)


def test_gradients_pass_through(trained):
    latents = vectors(32, seed=6)[None].requires_grad_()
    quantized, _ = trained.eval()(latents)
    quantized.square().sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, 2 * quantized.detach())


def test_books_follow_the_data_by_their_formula():
    """c <- .99 c + .01 n; s <- .99 s + .01 sum of vectors; entry = s / smoothed c."""
    single = quantizer(books=1)
    book = single.vq.layers[0]._codebook
    latents = vectors(256, seed=7)
    count, total = book.cluster_size.clone(), book.embed_avg.clone()
    codes = single.encode(latents[None])[0, 0]
    single.train()(latents[None])
    for entry in range(SIZE):
        members = latents[codes == entry]
        count[0, entry] = 0.99 * count[0, entry] + 0.01 * len(members)
        total[0, entry] = 0.99 * total[0, entry] + 0.01 * members.sum(0)
    smoothed = (count + 1e-5) / (count.sum() + SIZE * 1e-5) * count.sum()
    assert torch.allclose(book.cluster_size, count, rtol=1e-5)
    assert torch.allclose(single.codebooks()[0], (total / smoothed[..., None])[0], atol=1e-4)


def test_a_training_step_equals_the_librarys(trained):
    latents = vectors(256, seed=7)[None].requires_grad_()
    peer = library(trained.train())
    _, commitment = trained(latents)
    _, _, expected = peer(latents)
    assert torch.allclose(commitment, expected.mean(), rtol=1e-5)
    gradients = [torch.autograd.grad(x, latents)[0] for x in (commitment, expected.mean())]
    assert torch.allclose(*gradients, atol=1e-6)
    for name, value in trained.vq.state_dict().items():
        assert torch.allclose(value.float(), peer.state_dict()[name].float(), atol=1e-4), name


def test_dead_entries_move_to_data():
    single = quantizer(books=1)
    book = single.vq.layers[0]._codebook
    book.embed[0, 2] = 1000.0
    book.embed_avg[0, 2] = 0.0
    book.cluster_size[0, 2] = 0.0
    latents = vectors(256, seed=8)
    single.train()(latents[None])
    distance = (latents - single.codebooks()[0][2]).norm(dim=-1)
    assert distance.min() < 1e-6


def test_evaluation_changes_nothing(trained):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained(vectors(64)[None])
    trained.encode(vectors(64)[None])
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_one_book_and_one_vector():
    single = quantizer(books=1)
    codes = single.encode(vectors(1)[None])
    assert codes.shape == (1, 1, 1)
    assert single.decode(codes).shape == (1, 1, DIM)


def shaped(count: int = 400) -> tuple[ResidualQuantizer, torch.Tensor]:
    """A quantizer with error feedback and (2, T, DIM) latents that change slowly."""
    result = quantizer()
    result.error_feedback = 0.6
    steps = torch.randn(2, count, DIM, generator=torch.Generator().manual_seed(11))
    return result, vectors(2, seed=12)[:, None] + 0.02 * steps.cumsum(1)


def test_error_feedback_equals_a_plain_loop():
    result, latents = shaped(20)
    codes = result.encode(latents)
    for row, row_codes in zip(latents, codes, strict=True):
        errors = [torch.zeros(DIM)] * BOOKS
        for t, latent in enumerate(row):
            decoded = torch.zeros(DIM)
            for k, book in enumerate(result.codebooks()):
                wanted = latent + (0.6 * errors[k] if k else 0)
                assert row_codes[k, t] == (wanted - decoded - book).norm(dim=1).argmin()
                decoded = decoded + book[row_codes[k, t]]
                errors[k] = wanted - decoded


def test_error_feedback_lowers_the_errors_that_last():
    result, latents = shaped()
    lasting = {}
    for feedback in (0.0, 0.6):
        result.error_feedback = feedback
        error = result.decode(result.encode(latents)) - latents
        lasting[feedback] = error.unfold(1, 20, 20).mean(-1).square().mean()
    assert lasting[0.6] < 0.6 * lasting[0.0]


def test_error_feedback_leaves_the_first_book_alone():
    result, latents = shaped(40)
    codes = result.encode(latents)
    result.error_feedback = 0.0
    plain = result.encode(latents)
    assert torch.equal(codes[:, 0], plain[:, 0])
    assert not torch.equal(codes[:, 1], plain[:, 1])


def test_errors_carry_over_from_stretch_to_stretch():
    result, latents = shaped(40)
    errors: list[torch.Tensor] = []
    pieces = [result.encode(part, errors) for part in latents.split([1, 15, 24], dim=1)]
    assert torch.equal(torch.cat(pieces, dim=-1), result.encode(latents))


def test_training_quantizes_as_encoding_does():
    result, latents = shaped(40)
    quantized, _ = result(latents)
    assert torch.allclose(quantized, result.decode(result.encode(latents)), atol=1e-5)


def quantize_half(rank: int, folder: str) -> None:
    """One of two processes: a training step on its half of the batch."""
    torch.set_num_threads(1)
    half = ResidualQuantizer(DIM, 2, SIZE)
    half.load_state_dict(torch.load(Path(folder) / "before.pt", weights_only=True))
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    half.train()(vectors(256, seed=7).chunk(2)[rank][None])
    torch.save(half.state_dict(), Path(folder) / f"after{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    """Though the model is built before the processes know of each other."""
    whole = quantizer(books=2)
    torch.save(whole.state_dict(), tmp_path / "before.pt")
    processes.start_processes(quantize_half, (str(tmp_path),), nprocs=2, start_method="fork")
    whole.train()(vectors(256, seed=7)[None])
    for rank in range(2):
        after = torch.load(tmp_path / f"after{rank}.pt", weights_only=True)
        for name, value in whole.state_dict().items():
            assert torch.allclose(after[name].float(), value.float(), atol=1e-4), (rank, name)


def test_two_processes_replace_dead_entries_alike(tmp_path):
    """Though each samples from its own half of the batch."""
    whole = quantizer(books=2)
    for layer in whole.vq.layers:
        layer._codebook.cluster_size[0, :3] = 0.0
    torch.save(whole.state_dict(), tmp_path / "before.pt")
    processes.start_processes(quantize_half, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (
        torch.load(tmp_path / f"after{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert any(not torch.equal(first[name], value) for name, value in whole.state_dict().items())
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
