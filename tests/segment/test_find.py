"""Finding pictures, naming their results, reading frames."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rfclip.io import videos
from rfclip.segment.find import Picture, count_frames, find_pictures, read_frames
from rfclip.segment.names import source_of


def make(*paths: Path, colour: str = "red") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), colour).save(path)


def names(sources: list[Path], out: Path) -> dict[str, str]:
    found, problems, notes = find_pictures(sources, out)
    assert problems == notes == []
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
    found, problems, _ = find_pictures([photos], out)
    assert [(picture.path.name, picture.name) for picture in found] == [
        ("a.JPG", "a"),
        ("b.png", "b"),
        ("c.webp", "deep/c"),
    ]
    assert problems == []


def test_a_picture_given_twice_counts_once(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png")
    found, *_ = find_pictures([tmp_path / "in", tmp_path / "in/a.png", tmp_path / "in/../in/a.png"], tmp_path / "out")
    assert len(found) == 1


def test_one_stem_with_several_endings_or_from_several_folders(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png", tmp_path / "in/A.jpg")
    assert names([tmp_path / "in"], tmp_path / "out") == {"A.jpg": "A_jpg", "a.png": "a_png"}
    make(tmp_path / "one/x.png", tmp_path / "two/x.png", tmp_path / "two/X.PNG")
    found, *_ = find_pictures([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
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


def result_of(picture: Path, target: Path) -> None:
    """What a run leaves of a picture."""
    make(target.with_name(f"{target.name}_labels.png"), target.with_name(f"{target.name}_overlay.png"))
    facts = {"size": [1, 1], "names": [], "colours": [], "shares": {}, "image": str(picture)}
    facts["source"] = source_of(picture, target.parent)
    target.with_name(f"{target.name}.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("ending", [".png", ".avi"])
def test_a_source_is_known_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    for folder in ("one", "two"):
        make(tmp_path / folder / "x.png")
        (tmp_path / folder / "x.png").rename(tmp_path / folder / f"x{ending}")
    out = Path("../out")
    monkeypatch.chdir(tmp_path / "one")
    result_of(Path(f"x{ending}"), out / ("x" if ending == ".png" else "x/frame_000000"))
    for source in (Path(f"x{ending}"), tmp_path / f"one/x{ending}", Path(f"../one/x{ending}")):
        assert names([source], out) == {f"x{ending}": "x"}
    monkeypatch.chdir(tmp_path / "two")
    assert names([Path(f"x{ending}")], out) == {f"x{ending}": f"x_{ending[1:]}"}


@pytest.mark.parametrize("left", ["", '{"image": '])
def test_what_an_interrupted_run_left_is_ours(tmp_path: Path, left: str) -> None:
    make(tmp_path / "in/x.png")
    result_of(tmp_path / "in/x.png", tmp_path / "out/x")
    (tmp_path / "out/x.json").write_text(left)
    assert names([tmp_path / "in"], tmp_path / "out") == {"x.png": "x"}


def test_the_output_folder_may_hold_the_pictures_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "in/a.png")
    monkeypatch.chdir(tmp_path)
    assert names([Path("in")], Path()) == {"a.png": "a"}
    assert names([tmp_path / "in"], tmp_path) == {"a.png": "a"}


def test_long_names_are_cut_and_differ(tmp_path: Path) -> None:
    for stem in ("n" * 249 + "1", "n" * 249 + "2", "犬" * 83):
        make(tmp_path / f"in/{stem}.png")
    found = list(names([tmp_path / "in"], tmp_path / "out").values())
    assert len(set(found)) == 3
    make(*(tmp_path / f"out/{name}_overlay.png" for name in found))
    assert all(name.startswith(("nnn", "犬犬")) for name in found)


def test_what_is_left_out_is_said_once_per_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    make(folder / "a.png", tmp_path / "other/b.png")
    for name in ("x.heic", "deep/y.HEIC", "z.svg", "notes.txt", "data.json", "t.csv", "README", ".hidden.heic"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "more").symlink_to(tmp_path / "other")
    result_of(folder / "a.png", folder / "a")
    make(folder / "b_labels.png")  # of nothing that is here: a picture
    found, problems, notes = find_pictures([folder], tmp_path / "out")
    assert [picture.name for picture in found] == ["a", "b_labels"]
    assert problems == []
    assert notes == [
        f"{folder}: left out 3 files of kinds that are not read (.heic, .svg), 1 link to a folder, "
        "2 results of an earlier run; pictures of other kinds are read once they are saved as JPEG or PNG"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_file_is_reported_and_does_not_hang(tmp_path: Path) -> None:
    for name in ("pipe.mp4", "pipe.png"):
        os.mkfifo(tmp_path / name)
        picture = Picture(tmp_path / name, "pipe")
        assert count_frames(picture) == 1
        with pytest.raises(FileNotFoundError, match=name):
            list(read_frames(picture))
    (tmp_path / "loop.png").symlink_to("loop.png")
    found, problems, _ = find_pictures([tmp_path, tmp_path / ("x" * 300)], tmp_path / "out")
    assert len(found) == 3
    assert [problem[-18:] for problem in problems] == ["file name too long"]


def test_a_name_of_dots_stays_in_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "in/a.png")
    (tmp_path / "in/a.png").rename(tmp_path / "in/..png")
    assert names([tmp_path / "in/..png"], tmp_path / "out") == {"..png": "..png"}


def test_frames_of_a_video_and_pictures_in_a_folder_of_its_name(tmp_path: Path) -> None:
    make(tmp_path / "in/clip/frame_000000.png")
    (tmp_path / "in/clip.avi").touch()
    found = names([tmp_path / "in"], tmp_path / "out")
    assert found == {"frame_000000.png": "clip/frame_000000", "clip.avi": "clip_avi"}


def test_problems_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found, problems, _ = find_pictures([tmp_path / "empty", tmp_path / "gone.jpg"], tmp_path / "out")
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


def test_a_video_that_breaks_off_gives_its_frames_and_a_sentence(tmp_path: Path) -> None:
    make_video(tmp_path / "v.avi", 20)
    content = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "v.avi").write_bytes(content[: (content.index(b"movi") + content.index(b"idx1")) // 2])
    frames = read_frames(Picture(tmp_path / "v.avi", "v"))
    assert [next(frames).name for _ in range(5)][-1] == "v/frame_000004"
    with pytest.raises(ValueError, match=r"v\.avi' is damaged: of 20 frames \d+ could not be read"):
        list(frames)


@pytest.mark.parametrize(
    ("ending", "announced", "rate", "last", "complete"),
    [
        (".avi", 10, 10, 0.8, True),  # one short: headers err
        (".avi", 10, 10, 0.6, False),
        (".avi", 0, 10, 0.1, True),  # a stream
        (".avi", -9.2e18, 10, 0.1, True),
        (".mkv", 3000, 1000, 2.5, True),  # a rate that varies, and sound that ends later
        (".mkv", 3000, 1000, 1.0, False),
    ],
)
def test_how_many_frames_may_be_missing(
    ending: str, announced: float, rate: float, last: float, complete: bool
) -> None:
    class Video:
        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FRAME_COUNT: announced, cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_POS_MSEC: 1000 * last}[
                what
            ]

    read = 1 + round(last * 10)
    assert (videos._missing(Video(), Path(f"v{ending}"), read) == 0) is complete


def test_frames_that_cannot_be_decoded_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Video:
        left = 4

        def get(self, what: int) -> float:
            return {cv2.CAP_PROP_FRAME_COUNT: 4.0}.get(what, 25.0)

        def grab(self) -> bool:
            self.left -= 1
            return self.left >= 0

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return self.left % 2 == 1, np.zeros((2, 2, 3), np.uint8)

        def release(self) -> None:
            pass

    (tmp_path / "v.avi").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: Video())
    frames = []
    with pytest.raises(ValueError, match="of 4 frames 2 could not be read"):
        for frame in read_frames(Picture(tmp_path / "v.avi", "v")):
            frames.append(frame.name)
    assert frames == ["v/frame_000000", "v/frame_000002"]


def test_a_video_is_no_pattern_of_a_picture_series_and_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make(tmp_path / f"t{number:02d}.png")
        (tmp_path / f"t{number:02d}.png").rename(tmp_path / f"t{number:02d}.avi")
    (tmp_path / "t%02d.avi").write_bytes(b"no video")
    with pytest.raises(ValueError, match="cannot be read as a video"):
        list(read_frames(Picture(tmp_path / "t%02d.avi", "t")))
    make_video(tmp_path / "v.avi", 3)
    (tmp_path / "v.avi").rename(tmp_path / "data:b%02d.avi")
    monkeypatch.chdir(tmp_path)
    assert len(list(read_frames(Picture(Path("data:b%02d.avi"), "t")))) == 3


def test_a_video_with_a_name_that_opencv_cannot_take(tmp_path: Path) -> None:
    video = Picture(tmp_path / os.fsdecode(b"bad\xff.avi"), "bad")
    try:
        video.path.touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    assert count_frames(video) == 1
    with pytest.raises(ValueError, match="not UTF-8"):
        list(read_frames(video))


@pytest.mark.parametrize("text", ["#EXTM3U\n/etc/hosts\n", "\nffconcat version 1.0\nfile other.avi\n", "<MPD></MPD>"])
def test_a_list_of_videos_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.mp4").write_text(text)
    with pytest.raises(ValueError, match=r"v\.mp4' is a playlist, which names other files"):
        list(read_frames(Picture(tmp_path / "v.mp4", "v")))
    assert count_frames(Picture(tmp_path / "v.mp4", "v")) == 1


def test_bands_of_pictures_and_videos(tmp_path: Path) -> None:
    make(tmp_path / "a.png")
    make_video(tmp_path / "v.avi")
    (frame,) = read_frames(Picture(tmp_path / "a.png", "a"), bands=(3, 2, 1))
    assert frame.image[0, 0].tolist() == [0, 0, 255]
    last = list(read_frames(Picture(tmp_path / "v.avi", "v"), bands=(3, 2, 1)))[-1]
    assert last.image[0, 0, 2] > 150 > last.image[0, 0, 0]


def test_a_video_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"v\.mp4.*video"):
        list(read_frames(Picture(tmp_path / "v.mp4", "v")))
    assert count_frames(Picture(tmp_path / "v.mp4", "v")) == 1
