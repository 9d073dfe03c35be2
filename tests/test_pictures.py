"""Finding pictures, naming their results, reading frames."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rfclip.pictures import Picture, count_frames, find_pictures, read_frames


def make(*paths: Path, colour: str = "red") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), colour).save(path)


def names(sources: list[Path], out: Path) -> dict[str, str]:
    found, problems = find_pictures(sources, out)
    assert problems == []
    return {picture.path.name: picture.name for picture in found}


def make_video(path: Path, frames: int = 5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    for number in range(frames):
        writer.write(np.full((32, 48, 3), (0, 0, 40 * number), np.uint8))  # BGR: red grows
    writer.release()


def test_folders_are_searched_in_order_without_hidden_files_and_results(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    make(photos / "b.png", photos / "a.JPG", photos / "deep/c.webp", photos / "._a.jpg", photos / ".x/d.png")
    make(out / "old_labels.png")
    (photos / "notes.txt").write_text("no picture")
    (photos / "folder.png").mkdir()
    found, problems = find_pictures([photos], out)
    assert [(picture.path.name, picture.name) for picture in found] == [
        ("a.JPG", "a"),
        ("b.png", "b"),
        ("c.webp", "deep/c"),
    ]
    assert problems == []


def test_a_picture_given_twice_counts_once(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png")
    found, _ = find_pictures([tmp_path / "in", tmp_path / "in/a.png", tmp_path / "in/../in/a.png"], tmp_path / "out")
    assert len(found) == 1


def test_one_stem_with_several_endings_or_from_several_folders(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/A.jpg")
    assert names([tmp_path / "in"], tmp_path / "out") == {"A.jpg": "A_jpg", "a.png": "a_png"}
    make(tmp_path / "one/x.png", tmp_path / "two/x.png", tmp_path / "two/X.PNG")
    found, _ = find_pictures([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    results = [picture.name.casefold() for picture in found]
    assert len(set(results)) == 3
    assert results[0] == "x_png"


def test_a_result_never_overwrites_a_picture(tmp_path: Path) -> None:
    make(tmp_path / "a.png", tmp_path / "a_labels.png")
    found = names([tmp_path / "a.png", tmp_path / "a_labels.png"], tmp_path)
    assert found == {"a.png": "a_png", "a_labels.png": "a_labels"}


def test_results_of_another_picture_are_kept_and_own_ones_replaced(tmp_path: Path) -> None:
    make(tmp_path / "one/x.png", tmp_path / "two/x.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.json").write_text(json.dumps({"image": str(tmp_path / "one/x.png")}))
    assert names([tmp_path / "one/x.png"], out) == {"x.png": "x"}
    assert names([tmp_path / "two/x.png"], out) == {"x.png": "x_png"}
    (out / "x_png.json").write_text("no JSON")
    assert names([tmp_path / "two/x.png"], out) == {"x.png": "x_png-2"}


def test_frames_of_a_video_and_pictures_in_a_folder_of_its_name(tmp_path: Path) -> None:
    make(tmp_path / "in/clip/frame_000000.png")
    (tmp_path / "in/clip.avi").touch()
    found = names([tmp_path / "in"], tmp_path / "out")
    assert found == {"frame_000000.png": "clip/frame_000000", "clip.avi": "clip_avi"}


def test_problems_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found, problems = find_pictures([tmp_path / "empty", tmp_path / "gone.jpg"], tmp_path / "out")
    assert found == []
    assert "empty: no picture" in problems[0]
    assert "gone.jpg: no such file" in problems[1]
    make(tmp_path / "in/a.png")
    with pytest.raises(ValueError, match="another --out"):
        find_pictures([tmp_path / "in"], tmp_path / "in")


def test_first_image_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 3), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (frame,) = read_frames(Picture(tmp_path / "a.gif", "a"))
    assert frame.image.shape == (3, 5, 3)
    assert tuple(frame.image[0, 0]) == (255, 0, 0)
    assert "holds 3 images; the first one" in (frame.note or "")
    make(tmp_path / "b.png")
    (frame,) = read_frames(Picture(tmp_path / "b.png", "b"))
    assert frame.note is None


@pytest.mark.parametrize(("every", "expected"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_frames_of_a_video(tmp_path: Path, every: int, expected: list[int]) -> None:
    make_video(tmp_path / "v.avi")
    video = Picture(tmp_path / "v.avi", "deep/v")
    frames = list(read_frames(video, every))
    assert [frame.name for frame in frames] == [f"deep/v/frame_{number:06d}" for number in expected]
    assert count_frames(video, every) == len(expected)
    assert frames[-1].image.shape == (32, 48, 3)
    assert np.abs(frames[-1].image[..., 0].astype(int) - 40 * expected[-1]).max() < 10  # red comes first


def test_a_video_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"v\.mp4.*video"):
        list(read_frames(Picture(tmp_path / "v.mp4", "v")))
    assert count_frames(Picture(tmp_path / "v.mp4", "v")) == 1
