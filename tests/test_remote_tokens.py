"""Token caches in an object store: the order, exact resume, and what can be wrong there."""

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import torch
from tiny_data import write_parts
from tiny_pipeline import tiny_codec
from tiny_training import losses, run_prior, settings

from codec.process_settings import kept_process_settings
from pipelines.data.remote_tokens import KEPT_SHARDS, ShardOrder, ShardStore
from pipelines.data.shards import ShardKind
from pipelines.data.token_cache import build_token_cache
from pipelines.data.tokens import open_tokens, read_codes, read_token_info

BUCKET = "music"


@pytest.fixture(scope="module", params=["arrow", "parquet"])
def kind(request: pytest.FixtureRequest) -> ShardKind:
    return request.param


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, kind: ShardKind) -> dict[str, str]:
    """Tiny data and parts, the tokens in shards of two clips."""
    folder = tmp_path_factory.mktemp("parts")
    found = write_parts(folder)
    codec = type(tiny_codec()).from_pretrained(found["codec"]).eval()
    shutil.rmtree(found["tokens"])
    options = {"shard_clips": 2, "quiet": True}
    build_token_cache(found["prepared"], codec, found["tokens"], shards=kind, **options)
    return found


@pytest.fixture
def store(parts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of the token cache on an S3 server of this machine."""
    with kept_process_settings():
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        address = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "someone"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", address),
            ("TMPDIR", str(tmp_path)),
        ):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for path in Path(parts["tokens"]).rglob("*"):
            if path.is_file():
                key = path.relative_to(parts["tokens"]).as_posix()
                client.upload_file(str(path), BUCKET, f"tokens/{key}")
        yield f"s3://{BUCKET}/tokens"
        server.stop()


def test_every_clip_once_an_epoch_in_an_order_of_its_own() -> None:
    """Four shards at a time are shuffled; an item's place follows from the seed and its number."""
    rows = [3] * 9 + [1]
    order, again = ShardOrder(rows, 5), ShardOrder(rows, 5)
    epochs = [[order(28 * epoch + n) for n in range(28)] for epoch in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == [(s, r) for s, count in enumerate(rows) for r in range(count)]
        near = [len({shard for shard, _ in epoch[n : n + 4]}) for n in range(24)]
        assert max(near) <= KEPT_SHARDS
        assert max(near) > 1
    assert epochs[0] != epochs[1]
    assert again(40) == epochs[1][12]


def test_same_codes_as_on_disk(store: str, parts: dict[str, str], tmp_path: Path) -> None:
    """Any order of reading gives the codes of the cache; old copies are dropped from the disk."""
    remote = ShardStore([store], "train")
    local = open_tokens(parts["tokens"])
    assert [shard.rows for shard in remote.shards] == [2, 2, 1]
    for row in (4, 0, 3, 2, 1):
        assert torch.equal(read_codes(*remote.find((row // 2, row % 2))), read_codes(local, row))
    assert len(list((tmp_path / "partita-shards").iterdir())) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumes_in_the_middle_of_an_epoch(store, parts, tmp_path, num_workers):
    """Four steps of two items of five clips: stopped after two, the same losses and weights."""
    remote = parts | {"tokens": store}
    whole = settings(tmp_path / "whole")
    halves = settings(tmp_path / "halves", num_workers=num_workers)
    first = run_prior(remote, whole)
    run_prior(remote, halves)
    shutil.rmtree(tmp_path / "halves" / "checkpoint-00000004")
    second = run_prior(remote, halves, resume=True)
    name = "diffusion_pytorch_model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert losses(tmp_path / "halves")[-2:] == losses(tmp_path / "whole")[-2:]


def test_what_is_missing_or_refused_is_named(store, parts, tmp_path, kind, monkeypatch):
    import boto3

    client = boto3.client("s3")
    key = f"tokens/train/shard-00001.{kind}"
    whole = (Path(parts["tokens"]) / "train" / f"shard-00001.{kind}").read_bytes()
    remote = ShardStore([store], "train")
    client.put_object(Bucket=BUCKET, Key=key, Body=whole[:-200])
    with pytest.raises(ValueError, match=rf"shard-00001.{kind} is truncated"):
        remote.find((1, 0))
    client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(ValueError, match=rf"s3://.*shard-00001.{kind} cannot be read"):
        remote.find((1, 0))
    assert not [path for path in (tmp_path / "partita-shards").iterdir() if "partial" in path.name]
    with pytest.raises(ValueError, match=r"nowhere/tokens.json cannot be read"):
        ShardStore([f"s3://{BUCKET}/nowhere"], "train")
    with pytest.raises(ValueError, match=r"ftpx://a/tokens.json cannot be read"):
        ShardStore(["ftpx://a"], "train")
    with monkeypatch.context() as unset:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            unset.delenv(name, raising=False)
        unset.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(ValueError, match=r"tokens.json cannot be read: .*credentials"):
            ShardStore([store], "train")
    check_credentials(0)  # from now on
    with pytest.raises(ValueError, match=r"tokens.json cannot be read: [^\n]+$"):
        ShardStore([store], "train")
    check_credentials(math.inf)


def check_credentials(after: float) -> None:
    """Let the server check who asks, after some requests."""
    url, kind = os.environ["AWS_ENDPOINT_URL"] + "/moto-api/reset-auth", {"content-type": "text"}
    with urlopen(Request(url, str(after).encode(), kind, method="POST")) as reply:
        assert reply.status == 200


def test_parquet_is_read_from_disk_and_by_datasets(parts: dict[str, str], tmp_path: Path) -> None:
    """As Arrow is, by every reader of token caches, and by whoever opens it with datasets."""
    rows = open_tokens(parts["tokens"])
    other = tmp_path / "arrow"
    codec = type(tiny_codec()).from_pretrained(parts["codec"]).eval()
    build_token_cache(parts["prepared"], codec, other, quiet=True)
    expected = open_tokens(other)
    assert rows["id"][:] == expected["id"][:]
    assert all(torch.equal(read_codes(rows, n), read_codes(expected, n)) for n in range(5))
    others: ShardKind = "arrow" if rows_are_parquet(parts) else "parquet"
    with pytest.raises(ValueError, match=r"made with shards="):
        build_token_cache(parts["prepared"], codec, parts["tokens"], quiet=True, shards=others)


def test_a_truncated_shard_on_disk_is_named(parts, tmp_path, kind):
    shutil.copytree(parts["tokens"], tmp_path / "torn")
    shard = tmp_path / "torn" / "train" / f"shard-00001.{kind}"
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"shard-00001.{kind} is not a whole"):
        open_tokens(tmp_path / "torn")


def rows_are_parquet(parts: dict[str, str]) -> bool:
    return read_token_info(parts["tokens"]).shards == "parquet"
