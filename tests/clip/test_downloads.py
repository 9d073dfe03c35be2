"""Weights from the hub, without a hub."""

import pytest
from open_clip import pretrained

from rfclip.clip import downloads
from rfclip.clip.weights import WeightsNotFoundError

TAG = {"hf_hub": "owner/clip/", "url": ""}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A cache that holds the files put into it, and a network that is not there."""
    cache = {}
    monkeypatch.setattr(downloads, "try_to_load_from_cache", lambda repository, name: cache.get((repository, name)))
    monkeypatch.setattr(downloads, "_require_network", fail)
    return cache


def fail(*_, **__):
    raise OSError("no network")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_what_is_in_the_cache_needs_no_network(hub, name):
    hub["owner/clip", name] = f"/cache/{name}"
    assert downloads.download_tag(TAG, "tag").as_posix() == f"/cache/{name}"
    assert downloads.download_from_hub("owner/clip", None, "weights").as_posix() == f"/cache/{name}"


def test_a_file_of_its_own_name(hub):
    hub["owner/clip", "vit.pt"] = "/cache/vit.pt"
    assert downloads.download_tag({"hf_hub": "owner/clip/vit.pt"}, "tag").as_posix() == "/cache/vit.pt"
    hub["owner/clip", "c.json"] = "/cache/c.json"
    assert downloads.download_from_hub("owner/clip", "c.json", "config").as_posix() == "/cache/c.json"


def test_without_network_the_client_is_not_even_asked(hub, monkeypatch):
    monkeypatch.setattr(pretrained, "download_pretrained", lambda *_: pytest.fail("was asked"))
    monkeypatch.setattr(pretrained, "download_pretrained_from_hf", lambda *_: pytest.fail("was asked"))
    for call in (
        lambda: downloads.download_tag(TAG, "tag 'x'"),
        lambda: downloads.download_tag({"url": "https://x.invalid/a.pt"}, "tag 'x'"),
        lambda: downloads.download_from_hub("owner/clip", None, "tag 'x'"),
    ):
        with pytest.raises(WeightsNotFoundError, match=r"tag .x. cannot be downloaded .*no network"):
            call()


def test_with_network_open_clip_downloads(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "_require_network", lambda: None)
    monkeypatch.setattr(pretrained, "download_pretrained", lambda tag: str(tmp_path / tag["hf_hub"]))
    assert downloads.download_tag(TAG, "tag") == tmp_path / "owner/clip"
    monkeypatch.setattr(pretrained, "download_pretrained", fail)
    with pytest.raises(WeightsNotFoundError, match=r"clip\.model=.tiny."):
        downloads.download_tag(TAG, "tag")


def test_a_network_is_looked_for_only_without_a_proxy(monkeypatch):
    monkeypatch.setattr(downloads.socket, "create_connection", fail)
    monkeypatch.setattr(downloads.urllib.request, "getproxies", lambda: {})
    with pytest.raises(OSError, match="no network"):
        downloads._require_network()
    monkeypatch.setattr(downloads.urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    assert downloads._require_network() is None
